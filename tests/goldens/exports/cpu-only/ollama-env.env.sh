# glm-4.7-flash q4_K_M, 32768 tokens of context, KV cache f16, planned for AMD EPYC
# written by glmplan from the plan of 2026-01-01T00:00:00Z for llama-server, machine 0123456789abcdef
# not expressed: LLAMA_ARG_REPACK: read by the llama-server inside Ollama 0.30.0 or newer, not promised by Ollama
# then: ollama serve
export OLLAMA_HOST=127.0.0.1:11434
export OLLAMA_CONTEXT_LENGTH=32768
export OLLAMA_NUM_PARALLEL=1
export OLLAMA_MAX_LOADED_MODELS=1
export OLLAMA_KV_CACHE_TYPE=f16
export OLLAMA_FLASH_ATTENTION=1
export LLAMA_ARG_FIT=off
export LLAMA_ARG_CACHE_RAM=0
export LLAMA_ARG_REPACK=0
==== standard error
warning: LLAMA_ARG_REPACK: read by the llama-server inside Ollama 0.30.0 or newer, not promised by Ollama
