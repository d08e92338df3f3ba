-- Makes wrk print what it measured as numbers, rather than rounded and with units. `done` alone costs nothing for
-- a request: wrk still sends one text that it made at the start.
function done(summary, latency)
    local errors = summary.errors
    io.write(string.format(
        "\nmeasured %d %d %d %d %d %d %d %d %d %d\n",
        summary.duration, summary.requests, summary.bytes, latency:percentile(50), latency:percentile(99),
        errors.connect, errors.read, errors.write, errors.status, errors.timeout))
end
