-- The requests nearest to a vector ($1) among those of one embedding model, the nearest first.
-- A filter that is null holds for all; with a plan made for the values given, it costs nothing.
SELECT time, request_id, principal, model, provider, deployment, operation, task, status, finish_reason, error_code,
       input_tokens, output_tokens, cost_nano, latency_ms, ttft_ms, request_text, reply_text,
       1 - ({distance}) AS similarity
FROM model_insights
WHERE {of_the_model}
  AND ($2::text IS NULL OR model = $2)
  AND ($3::text IS NULL OR principal = $3)
  AND ($4::text IS NULL OR status = $4)
  AND ($5::timestamptz IS NULL OR time >= $5)
ORDER BY {distance}
LIMIT $6::int
