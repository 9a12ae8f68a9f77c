-- Whose a deal is, and whose the position that it closes.
ALTER TABLE executions
    ADD COLUMN IF NOT EXISTS opening_order_id Nullable(String) CODEC(ZSTD(1)) AFTER signal_id,
    ADD COLUMN IF NOT EXISTS opening_signal_id Nullable(String) CODEC(ZSTD(1)) AFTER opening_order_id,
    ADD COLUMN IF NOT EXISTS strategy LowCardinality(Nullable(String)) AFTER account,
    ADD COLUMN IF NOT EXISTS magic UInt64 CODEC(ZSTD(1)) AFTER position_id;
ALTER TABLE positions
    ADD COLUMN IF NOT EXISTS strategy LowCardinality(Nullable(String)) AFTER account,
    ADD COLUMN IF NOT EXISTS opening_order_id Nullable(String) CODEC(ZSTD(1)) AFTER strategy,
    ADD COLUMN IF NOT EXISTS opening_signal_id Nullable(String) CODEC(ZSTD(1)) AFTER opening_order_id,
    ADD COLUMN IF NOT EXISTS opened_at Nullable(DateTime64(6, 'UTC')) CODEC(Delta(8), ZSTD(1)) AFTER rev;

-- What each strategy has made, a row for each UTC day, account, strategy ('': no strategy's) and symbol. A deal counts on its day for the
-- strategy that fill/1 names, and what was charged to a position without a trade for the one that opened it; a position is won or lost on
-- the day of its last deal, by all that it did to the balance.
CREATE VIEW IF NOT EXISTS pnl_by_strategy AS
SELECT
    day,
    account,
    strategy,
    symbol,
    currency,
    sum(deal_profit) AS profit,
    sum(deal_commission) AS commission,
    sum(deal_swap) AS swap,
    sum(deal_fee) AS fee,
    sum(deal_profit + deal_commission + deal_swap + deal_fee) AS realized_profit,
    sum(deals) AS fills,
    sum(lots) AS volume,
    sum(won) AS wins,
    sum(lost) AS losses
FROM
(
    SELECT
        toDate(at) AS day,
        account,
        ifNull(strategy, '') AS strategy,
        symbol,
        currency,
        profit AS deal_profit,
        commission AS deal_commission,
        swap AS deal_swap,
        fee AS deal_fee,
        1 AS deals,
        volume AS lots,
        0 AS won,
        0 AS lost
    FROM executions FINAL
    WHERE NOT busted
    UNION ALL
    SELECT
        toDate(charge.at),
        charge.account,
        ifNull(place.strategy, ''),
        place.symbol,
        charge.currency,
        0,
        if(startsWith(charge.type, 'commission'), charge.amount, 0),
        0,
        if(startsWith(charge.type, 'commission'), 0, charge.amount),
        0,
        0,
        0,
        0
    FROM (SELECT * FROM account_operations FINAL WHERE type != 'credit') AS charge
    INNER JOIN (SELECT account, position_id, symbol, strategy FROM positions FINAL) AS place
        ON charge.account = place.account AND charge.position_id = place.position_id
    UNION ALL
    SELECT
        toDate(at), account, ifNull(strategy, ''), symbol, currency, 0, 0, 0, 0, 0, 0, realized_profit > 0, realized_profit < 0
    FROM positions FINAL
    WHERE volume = 0
)
GROUP BY day, account, strategy, symbol, currency;
