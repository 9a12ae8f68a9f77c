-- What an order is for, and whether an account's symbols have one position or many.
ALTER TABLE orders ADD COLUMN IF NOT EXISTS intent LowCardinality(String) DEFAULT 'open' AFTER strategy;
ALTER TABLE orders ADD CONSTRAINT IF NOT EXISTS intent_word CHECK intent IN ('open', 'close', 'reduce', 'reverse', 'modify');
ALTER TABLE order_events ADD COLUMN IF NOT EXISTS intent LowCardinality(String) DEFAULT 'open' AFTER strategy;
ALTER TABLE order_events ADD CONSTRAINT IF NOT EXISTS intent_word CHECK intent IN ('open', 'close', 'reduce', 'reverse', 'modify');
ALTER TABLE accounts ADD COLUMN IF NOT EXISTS margin_mode LowCardinality(Nullable(String)) AFTER leverage;
ALTER TABLE accounts ADD CONSTRAINT IF NOT EXISTS margin_mode_word CHECK margin_mode IS NULL OR margin_mode IN ('hedging', 'netting');
