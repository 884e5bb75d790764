-- The accounts are in the database `book`; results have one of their own.
CREATE DATABASE results;
