// A C interface to libtorch's CUDA graphs. `cuda_graph.rs` declares these functions in Rust.
//
// A graph is recorded on a stream of its own, as CUDA requires, and launched on the current one. No exception leaves a function. Each
// returns null or the message of its error, which the caller frees.

#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <cstdlib>
#include <cstring>
#include <exception>
#include <optional>

namespace {

struct Graph {
  at::cuda::CUDAGraph inner;
  c10::cuda::CUDAStream side;
  // Makes `side` the calling thread's current stream.
  std::optional<c10::cuda::CUDAStreamGuard> guard;
};

// Runs `body`, and returns null or the first line of its exception's message.
template <typename Body>
char* guard(Body body) noexcept {
  auto message = [](const char* text) { return strndup(text, strcspn(text, "\n")); };
  try {
    body();
    return nullptr;
  } catch (const c10::Error& error) {
    return message(error.what_without_backtrace());
  } catch (const std::exception& error) {
    return message(error.what());
  } catch (...) {
    return message("unknown error");
  }
}

}  // namespace

extern "C" {

void playfield_graph_free_message(char* message) {
  free(message);
}

// An empty graph on CUDA device `device`.
char* playfield_graph_new(int device, Graph** graph) {
  return guard([&] { *graph = new Graph{{}, c10::cuda::getStreamFromPool(false, static_cast<c10::DeviceIndex>(device)), {}}; });
}

void playfield_graph_free(Graph* graph) {
  delete graph;
}

// From here on the calling thread launches on the graph's stream, after everything that it launched before.
char* playfield_graph_enter(Graph* graph) {
  return guard([&] {
    c10::cuda::getCurrentCUDAStream(graph->side.device_index()).synchronize();
    graph->guard.emplace(graph->side);
  });
}

// Undoes `playfield_graph_enter`. Everything launched meanwhile is done then.
char* playfield_graph_leave(Graph* graph) {
  return guard([&] {
    graph->guard.reset();
    graph->side.synchronize();
  });
}

// From here on the calling thread's launches are recorded, not executed. Other threads launch as before.
char* playfield_graph_begin(Graph* graph) {
  return guard([&] { graph->inner.capture_begin({0, 0}, cudaStreamCaptureModeThreadLocal); });
}

// Ends the recording.
char* playfield_graph_end(Graph* graph) {
  return guard([&] { graph->inner.capture_end(); });
}

// Launches what was recorded, on the calling thread's current stream.
char* playfield_graph_launch(Graph* graph) {
  return guard([&] { graph->inner.replay(); });
}
}
