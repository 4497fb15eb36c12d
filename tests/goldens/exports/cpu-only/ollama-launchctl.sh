# glm-4.7-flash q4_K_M, 32768 tokens of context, KV cache f16, planned for AMD EPYC
# written by glmplan from the plan of 2026-01-01T00:00:00Z for llama-server, machine 0123456789abcdef
# not expressed: LLAMA_ARG_REPACK: read by the llama-server inside Ollama 0.30.0 or newer, not promised by Ollama
# then quit Ollama and start it again
launchctl setenv OLLAMA_HOST 127.0.0.1:11434
launchctl setenv OLLAMA_CONTEXT_LENGTH 32768
launchctl setenv OLLAMA_NUM_PARALLEL 1
launchctl setenv OLLAMA_MAX_LOADED_MODELS 1
launchctl setenv OLLAMA_KV_CACHE_TYPE f16
launchctl setenv OLLAMA_FLASH_ATTENTION 1
launchctl setenv LLAMA_ARG_FIT off
launchctl setenv LLAMA_ARG_CACHE_RAM 0
launchctl setenv LLAMA_ARG_REPACK 0
==== standard error
warning: LLAMA_ARG_REPACK: read by the llama-server inside Ollama 0.30.0 or newer, not promised by Ollama
