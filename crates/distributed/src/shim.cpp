// A C interface to the parts of libtorch's c10d that playfield uses: TCPStore (a key-value server for the rendezvous) and two
// backends of collective operations, ProcessGroupGloo (between CPUs) and ProcessGroupNCCL (between CUDA devices; only with
// PLAYFIELD_NCCL, where libtorch has CUDA). `ffi.rs` declares these functions in Rust.
//
// No exception leaves a function. Each returns null or the message of its error, which the caller frees.

#include <ATen/ops/empty_like.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros.h>
#include <gloo/context.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#ifdef PLAYFIELD_NCCL
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#endif

#include <cstdlib>
#include <cstring>

#include "shim.h"

using c10d::ProcessGroupGloo;
using playfield::guard;
using std::chrono::milliseconds;

namespace {

struct Store {
  c10::intrusive_ptr<c10d::Store> inner;
};

struct Backend {
  c10::intrusive_ptr<c10d::Backend> inner;
  milliseconds timeout;
  // How long `wait` blocks: for Gloo, whose operations end by themselves after the timeout, without a limit.
  milliseconds wait;
};

// Replaces the values by their sums over all ranks, exchanged as bfloat16: see playfield_sum.
void sum_in_bf16(Backend& backend, at::Tensor& values) {
  int64_t len = values.numel(), ranks = backend.inner->getSize(), part = (len + ranks - 1) / ranks;
  at::Tensor parts = at::zeros({ranks, part}, values.options().dtype(at::kBFloat16)), received = at::empty_like(parts);
  at::Tensor flat = parts.view(-1).narrow(0, 0, len);
  flat.copy_(values);
  c10d::AllToAllOptions to_all;
  to_all.timeout = backend.timeout;
  std::vector<int64_t> equal;
  backend.inner->alltoall_base(received, parts, equal, equal, to_all)->wait(backend.wait);
  at::Tensor sums = received.to(at::kFloat).sum(0, /*keepdim=*/true).to(at::kBFloat16);
  c10d::AllgatherOptions gather;
  gather.timeout = backend.timeout;
  backend.inner->_allgather_base(parts, sums, gather)->wait(backend.wait);
  values.copy_(flat);
}

// Replaces the values by their sums over all ranks, or by their maxima.
void all_reduce(Backend& backend, at::Tensor values, bool maximum) {
  std::vector<at::Tensor> tensors{std::move(values)};
  c10d::AllreduceOptions options;
  options.reduceOp = maximum ? c10d::ReduceOp::MAX : c10d::ReduceOp::SUM;
  options.timeout = backend.timeout;
  backend.inner->allreduce(tensors, options)->wait(backend.wait);
}

// A tensor over the caller's memory.
at::Tensor over(void* data, int64_t len, at::ScalarType type) {
  return at::from_blob(data, {len}, at::TensorOptions().dtype(type));
}

} // namespace

extern "C" {

void playfield_free(char* message) {
  std::free(message);
}

// Connects to the store at host:port. `listener` ≥ 0 is a socket that is bound to this address: the store is served there, by a
// thread of this process. Keys get the prefix `prefix`.
char* playfield_store_connect(
    const char* host, uint16_t port, int listener, const char* prefix, int64_t timeout, Store** store) {
  return guard([&] {
    c10d::TCPStoreOptions options;
    options.port = port;
    options.isServer = listener >= 0;
    options.waitWorkers = false;
    options.timeout = milliseconds(timeout);
    if (listener >= 0) {
      options.masterListenFd = listener;
    }
    auto tcp = c10::make_intrusive<c10d::TCPStore>(host, options);
    *store = new Store{c10::make_intrusive<c10d::PrefixStore>(prefix, tcp)};
  });
}

void playfield_store_free(Store* store) {
  delete store;
}

char* playfield_store_set(Store* store, const char* key, const uint8_t* value, size_t len) {
  return guard([&] { store->inner->set(key, std::vector<uint8_t>(value, value + len)); });
}

// Adds 1 to the counter `key`, and writes its new value to `count`.
char* playfield_store_count(Store* store, const char* key, int64_t* count) {
  return guard([&] { *count = store->inner->add(key, 1); });
}

// Writes the value of `key`, which the caller frees, and its length; null if the key does not exist.
char* playfield_store_get(Store* store, const char* key, char** value, size_t* len) {
  return guard([&] {
    *value = nullptr;
    if (store->inner->check({key})) {
      auto bytes = store->inner->get(key);
      *len = bytes.size();
      *value = static_cast<char*>(std::malloc(bytes.size() + 1));
      std::memcpy(*value, bytes.data(), bytes.size());
    }
  });
}

// Connects `rank` to the others, which join through the same store, with Gloo. It listens on `address`, or on the address of
// `interface` where that is not empty. Every operation fails after `timeout` milliseconds. `name` tells several backends apart.
char* playfield_gloo_join(
    Store* store, const char* name, int rank, int world_size, const char* address, const char* interface, int64_t timeout,
    Backend** gloo) {
  return guard([&] {
    auto options = ProcessGroupGloo::Options::create(milliseconds(timeout));
    // Operations run one at a time.
    options->threads = 1;
    options->devices.push_back(
        *interface ? ProcessGroupGloo::createDeviceForInterface(interface)
                   : ProcessGroupGloo::createDeviceForHostname(address));
    auto own = c10::make_intrusive<c10d::PrefixStore>(name, store->inner);
    auto inner = c10::make_intrusive<ProcessGroupGloo>(own, rank, world_size, options);
    *gloo = new Backend{inner, milliseconds(timeout), kNoTimeout};
  });
}

#ifdef PLAYFIELD_NCCL
// Writes the UUID of a CUDA device, which the caller frees: 32 hexadecimal digits.
char* playfield_cuda_uuid(int device, char** uuid) {
  return guard([&] {
    std::string text;
    for (char byte : at::cuda::getDeviceProperties(device)->uuid.bytes) {
      const char* digits = "0123456789abcdef";
      text += {digits[(byte >> 4) & 15], digits[byte & 15]};
    }
    *uuid = strdup(text.c_str());
  });
}

// Connects `rank` to the others with NCCL, for tensors on the CUDA device `device`.
char* playfield_nccl_join(Store* store, int rank, int world_size, int device, int64_t timeout, Backend** nccl) {
  return guard([&] {
    // Errors and timeouts are exceptions of `wait`. By default a thread of c10d ends the process instead.
    setenv("TORCH_NCCL_BLOCKING_WAIT", "1", /*overwrite=*/0);
    auto options = c10d::ProcessGroupNCCL::Options::create();
    options->timeout = milliseconds(timeout);
    auto inner = c10::make_intrusive<c10d::ProcessGroupNCCL>(store->inner, rank, world_size, options);
    *nccl = new Backend{inner, milliseconds(timeout), milliseconds(timeout)};
    // NCCL connects at the first operation: what is wrong is said here.
    all_reduce(**nccl, at::zeros({1}, at::TensorOptions().dtype(at::kFloat).device(at::kCUDA, device)), false);
  });
}
#endif

void playfield_backend_free(Backend* backend) {
  delete backend;
}

// Replaces the elements by their sums over all ranks, or by their maxima.
char* playfield_all_reduce(Backend* backend, double* data, int64_t len, bool maximum) {
  return guard([&] { all_reduce(*backend, over(data, len, at::kDouble), maximum); });
}

// Replaces the elements of a contiguous tensor of fp32, on a device of the backend, by their sums over all ranks, which are exchanged
// as bfloat16 if `bf16`: each rank adds one part of the elements, in fp32 and in the order of the ranks, and sends the rounded sums to
// all. Gloo's own all-reduce of bfloat16 rounds after each addition, and was slower (1M elements, two ranks on loopback, AVX-512: at
// least 17 ms, and 5 ms in fp32).
char* playfield_sum(Backend* backend, at::Tensor* values, bool bf16) {
  return guard([&] { bf16 ? sum_in_bf16(*backend, *values) : all_reduce(*backend, *values, false); });
}

// Replaces the bytes by those of rank 0.
char* playfield_broadcast(Backend* backend, uint8_t* data, int64_t len) {
  return guard([&] {
    std::vector<at::Tensor> tensors{over(data, len, at::kByte)};
    c10d::BroadcastOptions options;
    options.timeout = backend->timeout;
    backend->inner->broadcast(tensors, options)->wait();
  });
}

char* playfield_send(Backend* backend, uint8_t* data, int64_t len, int to) {
  return guard([&] {
    std::vector<at::Tensor> tensors{over(data, len, at::kByte)};
    backend->inner->send(tensors, to, 0)->wait(backend->timeout);
  });
}

char* playfield_receive(Backend* backend, uint8_t* data, int64_t len, int from) {
  return guard([&] {
    std::vector<at::Tensor> tensors{over(data, len, at::kByte)};
    backend->inner->recv(tensors, from, 0)->wait(backend->timeout);
  });
}

} // extern "C"
