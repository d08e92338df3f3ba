-- A logical replica: takes the table users from the primary, and lets clients only read.

CREATE SUBSCRIPTION :"subscription" CONNECTION :'conninfo' PUBLICATION users
    WITH (slot_name = :'subscription', copy_data = true);

-- From the next start on, for every session. The workers of the subscription write all the same.
ALTER SYSTEM SET default_transaction_read_only = on;
