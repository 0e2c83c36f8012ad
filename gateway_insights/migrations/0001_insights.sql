-- One row per request, the roll-ups, and how far the event stream has been read.
-- Times are UTC, money is whole nano-dollars, sketches are bytes that gateway_insights/sketch.py reads.

CREATE EXTENSION IF NOT EXISTS vector;

CREATE TABLE model_insights (
    time timestamptz NOT NULL,
    event_id text NOT NULL,
    request_id text NOT NULL,
    principal text NOT NULL,
    model text NOT NULL,
    provider text,
    deployment text,
    operation text NOT NULL DEFAULT 'chat',
    task text,
    fallback_for text,
    attempt integer,
    status text NOT NULL CHECK (status IN ('done', 'failed', 'cancelled', 'unknown')),
    finish_reason text,
    error_code text,
    input_tokens bigint NOT NULL DEFAULT 0,
    output_tokens bigint NOT NULL DEFAULT 0,
    cached_tokens bigint NOT NULL DEFAULT 0,
    cache_write_tokens bigint NOT NULL DEFAULT 0,
    reasoning_tokens bigint NOT NULL DEFAULT 0,
    audio_tokens bigint NOT NULL DEFAULT 0,
    image_tokens bigint NOT NULL DEFAULT 0,
    cost_nano bigint NOT NULL,
    estimated boolean,
    service_tier text,
    latency_ms integer,
    ttft_ms integer,
    window_day date,
    request_text text,
    reply_text text,
    text_hash bytea,
    embedding vector,
    embedding_model text,
    PRIMARY KEY (time, event_id)
) PARTITION BY RANGE (time);

-- What lies outside the days that have a partition: nothing is refused for its time.
CREATE TABLE model_insights_default PARTITION OF model_insights DEFAULT;

CREATE INDEX model_insights_model ON model_insights (model, time);
CREATE INDEX model_insights_principal ON model_insights (principal, time);
CREATE INDEX model_insights_request ON model_insights (request_id);
CREATE INDEX model_insights_embedding_model ON model_insights (embedding_model);

-- Requests that were charged by an `.unknown` and have not ended: the terminal event completes their row.
CREATE TABLE insights_open (
    principal text NOT NULL,
    request_id text NOT NULL,
    row_time timestamptz NOT NULL,
    row_event_id text NOT NULL,
    PRIMARY KEY (principal, request_id)
);

CREATE TABLE insights_cursor (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    event_id text NOT NULL,
    events bigint NOT NULL
);
INSERT INTO insights_cursor (event_id, events) VALUES ('0-0', 0);

-- The budget as the events tell it; compared with the ledger to the nano-dollar.
CREATE TABLE insights_settled (
    scope text NOT NULL,
    window_day date NOT NULL,
    settled_nano bigint NOT NULL,
    PRIMARY KEY (scope, window_day)
);

-- Roll-ups are updated again and again: room on each page lets an update stay where its row is.
CREATE TABLE model_stats_hourly (
    hour timestamptz NOT NULL,
    model text NOT NULL,
    provider text NOT NULL,
    requests bigint NOT NULL DEFAULT 0,
    errors bigint NOT NULL DEFAULT 0,
    cancelled bigint NOT NULL DEFAULT 0,
    input_tokens bigint NOT NULL DEFAULT 0,
    output_tokens bigint NOT NULL DEFAULT 0,
    cached_tokens bigint NOT NULL DEFAULT 0,
    reasoning_tokens bigint NOT NULL DEFAULT 0,
    cost_nano bigint NOT NULL DEFAULT 0,
    cache_hits bigint NOT NULL DEFAULT 0,
    latency bytea,
    ttft bytea,
    PRIMARY KEY (hour, model, provider)
) WITH (fillfactor = 50);

CREATE TABLE model_cost_trends (
    day date NOT NULL,
    model text NOT NULL,
    requests bigint NOT NULL DEFAULT 0,
    cost_nano bigint NOT NULL DEFAULT 0,
    input_tokens bigint NOT NULL DEFAULT 0,
    output_tokens bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (day, model)
) WITH (fillfactor = 50);
