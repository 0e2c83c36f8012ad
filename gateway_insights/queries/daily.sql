-- Cost and tokens by day and model in a span of days ($1 to $2), beside the first day that anything is known of.
SELECT day, model, requests, cost_nano, input_tokens, output_tokens,
       (SELECT min(day) FROM model_cost_trends) AS first_day
FROM model_cost_trends
WHERE day BETWEEN $1::date AND $2::date
ORDER BY day, model
