"""The account's journal: what is on disk before it is done or said."""
