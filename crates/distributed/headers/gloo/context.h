#pragma once
#include <chrono>
#include <memory>

// ProcessGroupGloo.hpp holds contexts and buffers by pointer.
namespace gloo {

class Context {
 public:
  void setTimeout(std::chrono::milliseconds timeout);
};

namespace transport {
class UnboundBuffer {
 public:
  virtual ~UnboundBuffer();
};
} // namespace transport

} // namespace gloo
