"""The account process: one for each account, it decides, records and reports, and asks its worker."""
