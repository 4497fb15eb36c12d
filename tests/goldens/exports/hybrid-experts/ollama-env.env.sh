# glm-4.7-flash q4_K_M, 131072 tokens of context, KV cache q8_0, planned for NVIDIA GeForce RTX 4060 Ti
# written by glmplan from the plan of 2026-01-01T00:00:00Z for llama-server, machine 0123456789abcdef
# not expressed: LLAMA_ARG_N_CPU_MOE: read by the llama-server inside Ollama 0.30.0 or newer, not promised by Ollama
# then: ollama serve
export OLLAMA_HOST=127.0.0.1:11434
export OLLAMA_CONTEXT_LENGTH=131072
export OLLAMA_NUM_PARALLEL=1
export OLLAMA_MAX_LOADED_MODELS=1
export OLLAMA_KV_CACHE_TYPE=q8_0
export OLLAMA_FLASH_ATTENTION=1
export LLAMA_ARG_FIT=off
export LLAMA_ARG_CACHE_RAM=0
export LLAMA_ARG_N_CPU_MOE=12
==== standard error
warning: LLAMA_ARG_N_CPU_MOE: read by the llama-server inside Ollama 0.30.0 or newer, not promised by Ollama
