-- Four panels of a dashboard. Each is a query of its own, on the database trading (the setting clickhouse.database).

-- Equity of each account by the minute, today.
SELECT account, toStartOfMinute(at) AS minute, argMax(equity, at) AS equity
FROM account_history FINAL
WHERE at >= toStartOfDay(now('UTC'))
GROUP BY account, minute
ORDER BY account, minute;

-- What each strategy has made today, a row for each currency, for currencies don't add up.
SELECT strategy, currency, sum(realized_profit) AS made, sum(fills) AS fills, sum(volume) AS lots
FROM pnl_by_strategy
WHERE day = toDate(now('UTC'))
GROUP BY strategy, currency
ORDER BY made DESC;

-- What execution costs, in basis points against the expected price: positive is adverse.
SELECT symbol, count() AS orders, round(avg(slippage_expected_bps), 2) AS mean, round(quantile(0.95)(slippage_expected_bps), 2) AS p95
FROM orders FINAL
WHERE status = 'filled' AND created_at >= now('UTC') - INTERVAL 7 DAY AND slippage_expected_bps IS NOT NULL
GROUP BY symbol
ORDER BY symbol;

-- What needs a person: orders in doubt, and differences between our books and the broker's.
SELECT account, 'order in doubt' AS what, order_id AS which, updated_at AS since FROM orders FINAL WHERE detail = 'in_doubt'
UNION ALL
SELECT account, kind AS what, break_id AS which, first_seen AS since FROM breaks FINAL WHERE disposition = 'open'
ORDER BY since;
