#pragma once // ProcessGroupGloo.hpp includes this header and uses no name of it.
