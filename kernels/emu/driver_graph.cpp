// Graphs: one captured stream, replayed in order. Capture over several streams is refused.
#include "driver.h"

using namespace emu;

static Graph* find_graph(void* handle) {
    return driver().graphs.count(handle) ? (Graph*)handle : nullptr;
}

template <class Handle>
static CUresult destroy_graph(Handle handle) {
    REQUIRE(driver().graphs.erase(handle), CUDA_ERROR_INVALID_HANDLE);
    delete (Graph*)handle;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuStreamBeginCapture(CUstream handle, CUstreamCaptureMode) {
    ENTER(Context);
    Stream* stream = handle ? find_stream(handle) : nullptr;
    REQUIRE(stream, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    REQUIRE(!stream->capturing, CUDA_ERROR_ILLEGAL_STATE);
    stream->capturing = true;
    stream->captured.clear();
    return CUDA_SUCCESS;
}

EXPORT CUresult cuStreamIsCapturing(CUstream handle, CUstreamCaptureStatus* status) {
    ENTER(Context);
    Stream* stream = find_stream(handle);
    REQUIRE(stream, CUDA_ERROR_INVALID_HANDLE);
    *status = stream->capturing ? CU_STREAM_CAPTURE_STATUS_ACTIVE : CU_STREAM_CAPTURE_STATUS_NONE;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuStreamEndCapture(CUstream handle, CUgraph* out) {
    ENTER(Context);
    Stream* stream = handle ? find_stream(handle) : nullptr;
    REQUIRE(stream && stream->capturing, CUDA_ERROR_ILLEGAL_STATE);
    stream->capturing = false;
    auto graph = std::make_unique<Graph>();
    graph->operations.swap(stream->captured);
    for (auto& o : graph->operations)
        REQUIRE(o.kind == OperationKind::Run, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    driver().graphs.insert(graph.get());
    *out = (CUgraph)graph.release();
    return CUDA_SUCCESS;
}

EXPORT CUresult cuGraphInstantiateWithFlags(CUgraphExec* out, CUgraph handle, unsigned long long) {
    ENTER(Context);
    Graph* graph = find_graph(handle);
    REQUIRE(graph, CUDA_ERROR_INVALID_HANDLE);
    auto* executable = new Graph(*graph);
    driver().graphs.insert(executable);
    *out = (CUgraphExec)executable;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuGraphUpload(CUgraphExec handle, CUstream) {
    ENTER(Context);
    REQUIRE(find_graph(handle), CUDA_ERROR_INVALID_HANDLE);
    return CUDA_SUCCESS;
}

EXPORT CUresult cuGraphLaunch(CUgraphExec handle, CUstream stream_handle) {
    ENTER(Context);
    Graph* graph = find_graph(handle);
    Stream* stream = find_stream(stream_handle);
    REQUIRE(graph && stream, CUDA_ERROR_INVALID_HANDLE);
    for (auto& o : graph->operations) submit(*stream, Operation(o));
    return CUDA_SUCCESS;
}

EXPORT CUresult cuGraphExecDestroy(CUgraphExec handle) {
    ENTER(Context);
    return destroy_graph(handle);
}

EXPORT CUresult cuGraphDestroy(CUgraph handle) {
    ENTER(Context);
    return destroy_graph(handle);
}
