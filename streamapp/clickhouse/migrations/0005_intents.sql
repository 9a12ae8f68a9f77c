-- What an order is for, and whether an account's symbols have one position or many.
ALTER TABLE orders ADD COLUMN IF NOT EXISTS intent LowCardinality(String) DEFAULT 'open' AFTER strategy;
ALTER TABLE order_events ADD COLUMN IF NOT EXISTS intent LowCardinality(String) DEFAULT 'open' AFTER strategy;
ALTER TABLE accounts ADD COLUMN IF NOT EXISTS margin_mode LowCardinality(Nullable(String)) AFTER leverage;
