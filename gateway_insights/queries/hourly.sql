-- The roll-ups since a full hour ($1), for sums and percentiles of whatever span.
SELECT model, requests, errors, cancelled, input_tokens, output_tokens, cached_tokens, reasoning_tokens,
       cost_nano, cache_hits, latency, ttft
FROM model_stats_hourly
WHERE hour >= $1::timestamptz AND hour <= $2::timestamptz
ORDER BY model, hour
