-- Everything, for whoever creates each new table on his side as well; and the one table that a logical replica of
-- this stack takes. A subscription to everything stops at the first row of a table that its server has not got.

CREATE PUBLICATION everything FOR ALL TABLES;
CREATE PUBLICATION users FOR TABLE users;
