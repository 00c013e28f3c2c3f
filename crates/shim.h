// What playfield's C interfaces to libtorch share.

#pragma once

#include <c10/util/Exception.h>

#include <cstring>
#include <exception>

namespace playfield {

// The first line of an error: the others are a backtrace.
inline char* message(const char* text) {
  return strndup(text, strcspn(text, "\n"));
}

// Runs `body`, and returns null or the message of its exception, which the caller frees.
template <typename Body>
char* guard(Body body) noexcept {
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

}  // namespace playfield
