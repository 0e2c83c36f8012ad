#!/usr/bin/env bash
# Tests a running gateway with curl, over its published paths.
# GATEWAY_URL: where it is. ADMIN_TOKEN: its token; default: the one in the data directory.
set -uo pipefail

url="${GATEWAY_URL:-http://${GATEWAY_HOST:-127.0.0.1}:${GATEWAY_PORT:-8081}}"
secrets="${GATEWAY_DATA_DIR:-.gateway}/secrets.env"
token="${ADMIN_TOKEN:-$(sed -n 's/^ADMIN_TOKEN=//p' "$secrets" 2>/dev/null)}"
passed=0 failed=0
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

if [ -z "$token" ]; then
  echo "set ADMIN_TOKEN: it is not in $secrets" >&2
  exit 2
fi
# In a file: a token among the arguments shows in a process list.
(umask 077 && printf 'header = "Authorization: Bearer %s"\n' "$token" >"$work/auth")

# call NAME ARGUMENT...: one request; its body, header and status go to files.
call() {
  local name="$1"
  shift
  status="$(curl --silent --max-time 60 --output "$work/$name.body" --dump-header "$work/$name.header" \
    --write-out '%{http_code}' "$@")" || status=000
  body="$work/$name.body"
  header="$work/$name.header"
  touch "$body" "$header"
}

# check WHAT CONDITION...: count one test.
check() {
  local what="$1"
  shift
  if "$@"; then
    passed=$((passed + 1))
    echo "  ok    $what"
  else
    failed=$((failed + 1))
    echo "  FAIL  $what (HTTP $status: $(head -c 300 "$body"))"
  fi
}

is_status() { [ "$status" = "$1" ]; }
has() { grep -qi -- "$1" "$2"; }
# json EXPRESSION: whether it is true of the body, which is `d`.
json() { python3 -c "import json, sys; d = json.load(open(sys.argv[1])); sys.exit(not ($1))" "$body" 2>/dev/null; }
# stream EXPRESSION: the same of the chunks, which are `c`.
stream() {
  python3 -c "
import json, sys
data = [line[6:].strip() for line in open(sys.argv[1]) if line.startswith('data: ')]
c = [json.loads(text) for text in data if text != '[DONE]']
sys.exit(not ($1))" "$body" 2>/dev/null
}

chat='{"messages":[{"role":"user","content":"one two three"}],"max_tokens":16}'
chat_stream='{"messages":[{"role":"user","content":"one two three"}],"max_tokens":16,"stream":true}'
auth=(--config "$work/auth")
post=(--header 'Content-Type: application/json')

echo "Model Gateway at $url"

call live "$url/health/live"
check "GET /health/live answers" is_status 200
call ready "$url/health/ready"
check "GET /health/ready: Redis and a worker answer" is_status 200

call models "$url/models"
check "GET /models is open" is_status 200
check "GET /models names echo" has '"echo"' "$body"
call v1_models "${auth[@]}" "$url/v1/models"
check "GET /v1/models is a list as OpenAI's" json "d['object'] == 'list' and any(m['id'] == 'echo' for m in d['data'])"
call v1_model "${auth[@]}" "$url/v1/models/echo"
check "GET /v1/models/echo is one of them" json "d['id'] == 'echo' and d['object'] == 'model'"

call unauthorised "${post[@]}" --data "$chat" "$url/proxy/echo"
check "POST /proxy/echo without a token is 401" is_status 401
call wrong "${post[@]}" --header 'Authorization: Bearer wrong' --data "$chat" "$url/proxy/echo"
check "POST /proxy/echo with a wrong token is 401" is_status 401
call closed "$url/budget/stats"
check "GET /budget/stats without a token is 401" is_status 401

call before "${auth[@]}" "$url/budget/stats"
check "GET /budget/stats says limit, spent and remaining" json \
  "all(isinstance(d[k], (int, float)) for k in ('limit_usd', 'spent_usd', 'reserved_usd', 'remaining_usd', 'percent_used'))"
check "GET /budget/stats says when it resets, and by model" json \
  "d['date'] and d['resets_at'] and d['status'] and isinstance(d['by_model'], dict) and 'hard_stop' in d"

call whole "${auth[@]}" "${post[@]}" --data "$chat" "$url/proxy/echo"
check "POST /proxy/echo answers" is_status 200
check "  in the words it was asked" json "d['choices'][0]['message']['content'] == 'one two three'"
check "  with its usage" json "d['usage']['total_tokens'] > 0"
check "  with its signature" json "len(d['signature']) == 64 and d['x_request_id'].startswith('req_')"
check "  with its cost" has '^x-cost-usd: 0\.' "$header"

call task "${auth[@]}" "${post[@]}" --data "$chat" "$url/v1/chat/completions"
check "POST /v1/chat/completions without a model is 400" is_status 400
call v1 "${auth[@]}" "${post[@]}" --data "${chat/\{/\{\"model\":\"echo\",}" "$url/v1/chat/completions"
check "POST /v1/chat/completions answers" json "d['object'] == 'chat.completion'"

call streamed "${auth[@]}" "${post[@]}" --no-buffer --data "$chat_stream" "$url/proxy/echo"
check "POST /proxy/echo with stream is an event stream" has '^content-type: text/event-stream' "$header"
check "  that ends with [DONE]" has '^data: \[DONE\]' "$body"
check "  with every chunk signed and numbered" stream \
  "c and all(len(x['x_signature']) == 64 and x['x_index'] == i for i, x in enumerate(c))"
check "  with the last one marked" stream "c[-1]['x_final'] is True and c[-1]['x_chunks'] == len(c)"
check "  in the words it was asked" stream \
  "''.join(h['delta'].get('content') or '' for x in c for h in x['choices']) == 'one two three'"

before="$work/before.body"
call after "${auth[@]}" "$url/budget/stats"
check "the budget has grown by what was answered" json \
  "d['spent_usd'] > json.load(open('$before'))['spent_usd'] or d['date'] != json.load(open('$before'))['date']"

call unknown "${auth[@]}" "${post[@]}" --data "$chat" "$url/proxy/no-such-model"
check "an unknown model is 404 in OpenAI's error shape" json "d['error']['code'] == 'model_not_found'"
check "  with status 404" is_status 404
call broken "${auth[@]}" "${post[@]}" --data '{"messages": [' "$url/proxy/echo"
check "broken JSON is 400" is_status 400
call refused "${auth[@]}" "${post[@]}" --data '{"stream": true}' "$url/proxy/echo"
check "a stream that is refused is a plain 400" is_status 400
check "  that says what is missing" json "d['error']['param'] == 'messages'"

call metrics "$url/metrics"
for name in titan_model_requests_total titan_model_latency_seconds titan_cost_usd_total titan_budget_exceeded_total; do
  check "GET /metrics has $name" has "^# TYPE ${name%_total}" "$body"
done
check "GET /metrics counts echo" has '^titan_model_requests_total{model="echo"} [1-9]' "$body"

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
