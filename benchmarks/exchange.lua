-- wrk: each request carries the next identity token of a file (one a line), and none carries the same.
-- Arguments: the file; "repeat" to begin anew at its end, for servers that remember nothing.

local threads = {}

function setup(thread)
  table.insert(threads, thread)
end

function init(arguments)
  tokens, taken = {}, 0
  for line in io.lines(arguments[1]) do
    tokens[#tokens + 1] = line
  end
  from_the_start = arguments[2] == "repeat"
  ran_out = 0
  wrk.method = "POST"
  wrk.headers["Content-Type"] = "application/json"
end

function request()
  if taken == #tokens then
    if not from_the_start then ran_out = 1 end
    taken = 0
  end
  taken = taken + 1
  return wrk.format(nil, nil, nil, '{"token":"' .. tokens[taken] .. '"}')
end

function done(summary, latency, requests)
  local ran_out = 0
  for _, thread in ipairs(threads) do
    ran_out = ran_out + thread:get("ran_out")
  end
  local errors = summary.errors
  io.write(string.format(
    '\nresult {"requests": %d, "microseconds": %d, "refused": %d, "broken": %d, "ran_out": %d, "p50": %d, "p99": %d}\n',
    summary.requests, summary.duration, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout, ran_out,
    latency:percentile(50), latency:percentile(99)))
end
