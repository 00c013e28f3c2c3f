// A C interface to libtorch's CUDA graphs. `cuda_graph.rs` declares these functions in Rust.
//
// CUDA captures on a stream other than the default one, here one per device, and replays on the current stream. No exception leaves a
// function. Each returns null or the message of its error, which the caller frees.

#include <ATen/core/CachingHostAllocator.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <cstdlib>
#include <map>
#include <mutex>
#include <optional>

#include "shim.h"

using playfield::guard;

namespace {

struct Graph {
  at::cuda::CUDAGraph inner;
  c10::cuda::CUDAStream stream;
  at::MempoolId_t pool;
  // Makes `stream` the calling thread's current stream.
  std::optional<c10::cuda::CUDAStreamGuard> guard;
};

// The stream on which the graphs of a device are captured.
c10::cuda::CUDAStream capture_stream(c10::DeviceIndex device) {
  static std::mutex mutex;
  static std::map<c10::DeviceIndex, c10::cuda::CUDAStream> streams;
  std::lock_guard<std::mutex> lock(mutex);
  auto found = streams.find(device);
  if (found == streams.end()) {
    found = streams.emplace(device, c10::cuda::getStreamFromPool(false, device)).first;
  }
  return found->second;
}

// Ends what a failed capture leaves behind: that allocations go to its pool.
void end_allocation(Graph& graph) noexcept {
  try {
    c10::cuda::CUDACachingAllocator::endAllocateToPool(graph.stream.device_index(), graph.pool);
    c10::cuda::CUDACachingAllocator::releasePool(graph.stream.device_index(), graph.pool);
  } catch (...) {
  }
  try {
    at::getHostAllocator(at::kCUDA)->end_allocate_to_pool(graph.pool);
    at::getHostAllocator(at::kCUDA)->release_pool(graph.pool);
  } catch (...) {
  }
}

}  // namespace

extern "C" {

void playfield_graph_free_message(char* message) {
  free(message);
}

// An empty graph on CUDA device `device`.
char* playfield_graph_new(int device, Graph** graph) {
  return guard([&] {
    auto stream = capture_stream(static_cast<c10::DeviceIndex>(device));
    *graph = new Graph{{}, stream, at::cuda::graph_pool_handle(), {}};
  });
}

void playfield_graph_free(Graph* graph) {
  delete graph;
}

// From here on the calling thread launches on the graph's stream, after everything that it launched before.
char* playfield_graph_enter(Graph* graph) {
  return guard([&] {
    c10::cuda::getCurrentCUDAStream(graph->stream.device_index()).synchronize();
    graph->guard.emplace(graph->stream);
  });
}

// Undoes `playfield_graph_enter`. Everything launched meanwhile is done then.
char* playfield_graph_leave(Graph* graph) {
  return guard([&] {
    graph->guard.reset();
    graph->stream.synchronize();
  });
}

// From here on the calling thread's launches are captured, not executed. Other threads launch as before.
char* playfield_graph_begin(Graph* graph) {
  return guard([&] {
    try {
      graph->inner.capture_begin(graph->pool, cudaStreamCaptureModeThreadLocal);
    } catch (...) {
      end_allocation(*graph);
      throw;
    }
  });
}

// Ends the capture.
char* playfield_graph_end(Graph* graph) {
  return guard([&] {
    try {
      graph->inner.capture_end();
    } catch (...) {
      end_allocation(*graph);
      throw;
    }
  });
}

// Launches what was captured, on the calling thread's current stream.
char* playfield_graph_replay(Graph* graph) {
  return guard([&] { graph->inner.replay(); });
}
}
