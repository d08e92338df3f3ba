-- Roles and database. Passwords come from the environment, so that they stand in no file and on no command line.

\getenv users_password USERS_PASSWORD
\getenv lb_check_password LB_CHECK_PASSWORD
\getenv replication_password REPLICATION_PASSWORD

CREATE ROLE users LOGIN PASSWORD :'users_password';
CREATE ROLE lb_check LOGIN PASSWORD :'lb_check_password';

-- Reads all tables for the first copy of a logical replica; pg_monitor tells how far back the WAL reaches.
CREATE ROLE replicator LOGIN REPLICATION PASSWORD :'replication_password';
GRANT pg_read_all_data, pg_monitor TO replicator;

-- The owner may create tables in the schema public as well.
CREATE DATABASE users OWNER users;
