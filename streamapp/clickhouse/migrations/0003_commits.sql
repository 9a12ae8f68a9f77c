-- The commit that made a fact, counted per account, and the fact's place in it: facts are read in this order.
ALTER TABLE facts
    ADD COLUMN IF NOT EXISTS commit_number UInt64 CODEC(Delta(8), ZSTD(1)) AFTER archive_offset,
    ADD COLUMN IF NOT EXISTS commit_place UInt32 AFTER commit_number;

-- Rows replace themselves, so nothing has to keep a repeated insert out. What does is remembered longer than the rows: an engine that was
-- killed between the two, or whose rows were deleted, drops the repetition without a word, and the rows are gone for good.
ALTER TABLE orders MODIFY SETTING non_replicated_deduplication_window = 0;
ALTER TABLE order_events MODIFY SETTING non_replicated_deduplication_window = 0;
ALTER TABLE executions MODIFY SETTING non_replicated_deduplication_window = 0;
ALTER TABLE positions MODIFY SETTING non_replicated_deduplication_window = 0;
ALTER TABLE accounts MODIFY SETTING non_replicated_deduplication_window = 0;
ALTER TABLE signals MODIFY SETTING non_replicated_deduplication_window = 0;
ALTER TABLE facts MODIFY SETTING non_replicated_deduplication_window = 0;
ALTER TABLE broker_log MODIFY SETTING non_replicated_deduplication_window = 0;
