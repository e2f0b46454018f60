// Streams and events: queues whose work runs only when something waits for it, in an order chosen
// by seed among the legal ones.
#include <chrono>

#include "driver.h"
#include "global_memory.h"

namespace emu {

void join_clock(StreamClock& clock, const StreamClock& other) {
    if (clock.size() < other.size()) clock.resize(other.size());
    for (size_t i = 0; i < other.size(); i++) clock[i] = std::max(clock[i], other[i]);
}

Stream* find_stream(CUstream handle) {
    // Null and the legacy handle are the default stream; the per-thread one is not modelled.
    if (!handle || handle == CU_STREAM_LEGACY) return driver().streams[0].get();
    for (auto& stream : driver().streams)
        if ((CUstream)stream.get() == handle && !stream->destroyed) return stream.get();
    return nullptr;
}

static double now_seconds() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch())
        .count();
}

static bool can_run(const Stream& stream) {
    if (stream.queue.empty()) return false;
    const Operation& head = stream.queue.front();
    return head.kind != OperationKind::Wait || head.event->done >= head.ticket;
}

static void run_head(Stream& stream) {
    Operation o = std::move(stream.queue.front());
    stream.queue.pop_front();
    join_clock(stream.clock, o.host);
    if (stream.clock.size() <= stream.id) stream.clock.resize(stream.id + 1);
    stream.clock[stream.id] = o.position;
    switch (o.kind) {
    case OperationKind::Record:
        o.event->done = std::max(o.event->done, o.ticket);
        o.event->clocks[o.ticket] = stream.clock;
        if (o.event->clocks.size() > 64) o.event->clocks.erase(o.event->clocks.begin());
        o.event->seconds = now_seconds();
        break;
    case OperationKind::Wait:
        if (auto at = o.event->clocks.find(o.ticket); at != o.event->clocks.end())
            join_clock(stream.clock, at->second);
        break;
    case OperationKind::Run:
        lift_page_guard(o.host_begin, o.host_end);  // the copy itself may touch it
        driver().running = o.what;
        // Names live as long as reports may refer to them: there are few different ones.
        static auto* names = new std::set<std::string>();
        begin_operation(stream.id, o.position, names->insert(o.what).first->c_str(), stream.clock);
        o.run();
        update_page_guard(o.host_begin, o.host_end);
        break;
    }
}

// Runs the head of a stream, and what it waits for before it.
bool force_head(Stream& stream, int depth) {
    if (stream.queue.empty() || depth > 64) return false;
    if (can_run(stream)) {
        run_head(stream);
        return true;
    }
    const Operation& wait = stream.queue.front();
    for (auto& other : driver().streams)
        for (auto& o : other->queue)
            if (o.kind == OperationKind::Record && o.event == wait.event && o.ticket == wait.ticket)
                return force_head(*other, depth + 1);
    return false;
}

bool run_one_random() {
    std::vector<Stream*> candidates;
    for (auto& stream : driver().streams)
        if (can_run(*stream)) candidates.push_back(stream.get());
    if (candidates.empty()) return false;
    run_head(*candidates[driver().below((u32)candidates.size())]);
    return true;
}

void submit(Stream& stream, Operation&& operation) {
    if (stream.capturing) {
        stream.captured.push_back(std::move(operation));
        return;
    }
    uintptr_t begin = operation.host_begin, end = operation.host_end;
    operation.host = driver().host_clock;
    operation.position = ++stream.submitted;
    stream.queue.push_back(std::move(operation));
    update_page_guard(begin, end);
    if (trial.on) drain(stream);
    else if (driver().order == Order::Now)
        while (can_run(stream)) run_head(stream);
    else if (driver().order == Order::Random && driver().below(4) == 0) run_one_random();
}

void submit_run(Stream& stream, std::string what, std::function<void()> run, const void* host,
                size_t host_bytes, bool writes_host) {
    Operation o{OperationKind::Run, std::move(what), std::move(run), nullptr};
    o.host_begin = (uintptr_t)host;
    o.host_end = (uintptr_t)host + host_bytes;
    o.writes_host = writes_host;
    submit(stream, std::move(o));
}

CUresult drain(Stream& stream) {
    if (stream.capturing) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    run_until(&stream, [&] { return stream.queue.empty(); });
    join_clock(driver().host_clock, stream.clock);
    return driver().sticky;
}

CUresult drain_all() {
    while (run_one_random()) {
    }
    for (auto& stream : driver().streams) join_clock(driver().host_clock, stream->clock);
    return driver().sticky;
}

}  // namespace emu

using namespace emu;

static CUresult create_stream(CUstream* out, unsigned flags) {
    Driver& d = driver();
    // A blocking stream synchronises with the default stream implicitly: hooke has no use for it.
    REQUIRE(flags == CU_STREAM_NON_BLOCKING, CUDA_ERROR_NOT_SUPPORTED);
    d.streams.push_back(std::make_unique<Stream>(Stream{(u32)d.streams.size()}));
    *out = (CUstream)d.streams.back().get();
    return CUDA_SUCCESS;
}

EXPORT CUresult cuStreamCreate(CUstream* out, unsigned flags) {
    ENTER(Context);
    return create_stream(out, flags);
}

EXPORT CUresult cuStreamCreateWithPriority(CUstream* out, unsigned flags, int) {
    ENTER(Context);
    return create_stream(out, flags);
}

// Its work still completes.
EXPORT CUresult cuStreamDestroy(CUstream handle) {
    ENTER(Context);
    Stream* stream = handle ? find_stream(handle) : nullptr;
    REQUIRE(stream, CUDA_ERROR_INVALID_HANDLE);
    stream->destroyed = true;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuStreamSynchronize(CUstream handle) {
    ENTER(Context);
    Stream* stream = find_stream(handle);
    REQUIRE(stream, CUDA_ERROR_INVALID_HANDLE);
    return drain(*stream);
}

EXPORT CUresult cuStreamQuery(CUstream handle) {
    ENTER(Context);
    Stream* stream = find_stream(handle);
    REQUIRE(stream, CUDA_ERROR_INVALID_HANDLE);
    force_head(*stream);
    REQUIRE(stream->queue.empty(), CUDA_ERROR_NOT_READY);
    join_clock(driver().host_clock, stream->clock);
    return driver().sticky;
}

EXPORT CUresult cuStreamWaitEvent(CUstream handle, CUevent event, unsigned) {
    ENTER(Context);
    Stream* stream = find_stream(handle);
    REQUIRE(stream && driver().events.count(event), CUDA_ERROR_INVALID_HANDLE);
    EventPtr e = ((EventHandle*)event)->event;
    if (!e->recorded) return CUDA_SUCCESS;  // never recorded: no effect, as in CUDA
    Operation o{OperationKind::Wait, "wait", nullptr, e};
    o.ticket = e->recorded;
    submit(*stream, std::move(o));
    return CUDA_SUCCESS;
}

EXPORT CUresult cuEventCreate(CUevent* out, unsigned flags) {
    ENTER(Context);
    auto* handle = new EventHandle{std::make_shared<Event>()};
    handle->event->timing = !(flags & CU_EVENT_DISABLE_TIMING);
    driver().events.insert(handle);
    *out = (CUevent)handle;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuEventDestroy(CUevent event) {
    ENTER(Context);
    REQUIRE(driver().events.erase(event), CUDA_ERROR_INVALID_HANDLE);
    delete (EventHandle*)event;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuEventRecord(CUevent event, CUstream handle) {
    ENTER(Context);
    Stream* stream = find_stream(handle);
    REQUIRE(stream && driver().events.count(event), CUDA_ERROR_INVALID_HANDLE);
    EventPtr e = ((EventHandle*)event)->event;
    Operation o{OperationKind::Record, "record", nullptr, e};
    o.ticket = ++e->recorded;
    submit(*stream, std::move(o));
    return CUDA_SUCCESS;
}

// The stream that still has to record the event, if any.
static Stream* recorder_of(const EventPtr& event) {
    for (auto& stream : driver().streams)
        for (auto& o : stream->queue)
            if (o.kind == OperationKind::Record && o.event == event && o.ticket == event->recorded)
                return stream.get();
    return nullptr;
}

EXPORT CUresult cuEventSynchronize(CUevent event) {
    ENTER(Context);
    REQUIRE(driver().events.count(event), CUDA_ERROR_INVALID_HANDLE);
    EventPtr e = ((EventHandle*)event)->event;
    if (Stream* stream = recorder_of(e)) run_until(stream, [&] { return e->done >= e->recorded; });
    if (e->recorded) join_clock(driver().host_clock, e->clocks[e->recorded]);
    return driver().sticky;
}

EXPORT CUresult cuEventQuery(CUevent event) {
    ENTER(Context);
    REQUIRE(driver().events.count(event), CUDA_ERROR_INVALID_HANDLE);
    EventPtr e = ((EventHandle*)event)->event;
    if (Stream* stream = recorder_of(e)) force_head(*stream);
    REQUIRE(e->done >= e->recorded, CUDA_ERROR_NOT_READY);
    if (e->recorded) join_clock(driver().host_clock, e->clocks[e->recorded]);
    return driver().sticky;
}

EXPORT CUresult cuEventElapsedTime_v2(float* ms, CUevent start, CUevent end) {
    ENTER(Context);
    REQUIRE(driver().events.count(start) && driver().events.count(end), CUDA_ERROR_INVALID_HANDLE);
    const Event &a = *((EventHandle*)start)->event, &b = *((EventHandle*)end)->event;
    REQUIRE(a.timing && b.timing && a.recorded && b.recorded, CUDA_ERROR_INVALID_HANDLE);
    REQUIRE(a.done >= a.recorded && b.done >= b.recorded, CUDA_ERROR_NOT_READY);
    *ms = (float)((b.seconds - a.seconds) * 1e3);
    return driver().sticky;
}
