#pragma once

// ProcessGroupGloo.hpp holds devices by pointer.
namespace gloo::transport {
class Device;
}
