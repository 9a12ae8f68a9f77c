-- The risk engine's table, made only where it is missing and never written by us. {field:x} becomes the name that execution.field_names
-- gives to our field x. An empty text means: not said.
CREATE TABLE IF NOT EXISTS trading_signals
(
    {field:signal_id}          String CODEC(ZSTD(1)),
    {field:status}             LowCardinality(String),
    {field:account}            LowCardinality(String),
    {field:strategy}           LowCardinality(String),
    {field:symbol}             LowCardinality(String),
    {field:side}               LowCardinality(String),
    {field:order_type}         LowCardinality(String) DEFAULT 'market',
    {field:volume}             Decimal(38, 10) CODEC(ZSTD(1)),
    {field:price}              Nullable(Decimal(38, 10)) CODEC(ZSTD(1)),
    {field:stop_limit_price}   Nullable(Decimal(38, 10)) CODEC(ZSTD(1)),
    {field:stop_loss}          Nullable(Decimal(38, 10)) CODEC(ZSTD(1)),
    {field:take_profit}        Nullable(Decimal(38, 10)) CODEC(ZSTD(1)),
    {field:time_in_force}      LowCardinality(String) DEFAULT 'gtc',
    {field:expiration}         Nullable(DateTime64(6, 'UTC')) CODEC(Delta(8), ZSTD(1)),
    {field:fill_policy}        LowCardinality(String) DEFAULT 'any',
    {field:expected_price}     Nullable(Decimal(38, 10)) CODEC(ZSTD(1)),
    {field:max_slippage_points} Nullable(UInt32),
    {field:approved_at}        Nullable(DateTime64(6, 'UTC')) CODEC(Delta(8), ZSTD(1)),
    {field:valid_until}        Nullable(DateTime64(6, 'UTC')) CODEC(Delta(8), ZSTD(1)),
    {field:metadata}           String DEFAULT '{}' CODEC(ZSTD(3)),
    written_at                 DateTime64(6, 'UTC') DEFAULT now64(6) CODEC(Delta(8), ZSTD(1))
)
ENGINE = ReplacingMergeTree(written_at)
ORDER BY ({field:signal_id}, {field:account});
