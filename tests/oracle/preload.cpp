// Loads the backend named by GGML_BACKEND_PATH into a program that does not do so itself (LD_PRELOAD this).
#include "ggml-backend.h"

#include <cstdlib>

__attribute__((constructor)) static void load_backend() {
    const char * path = std::getenv("GGML_BACKEND_PATH");
    if (path != nullptr) {
        ggml_backend_load(path);
    }
}
