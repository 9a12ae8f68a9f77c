-- A login that the broker refuses has a word of its own.
ALTER TABLE accounts DROP CONSTRAINT IF EXISTS connection_word;
ALTER TABLE accounts ADD CONSTRAINT IF NOT EXISTS connection_word
    CHECK connection IN ('connecting', 'ready', 'no_algo_trading', 'wrong_account', 'wrong_password', 'disconnected', 'hung');
