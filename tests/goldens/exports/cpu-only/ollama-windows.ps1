# glm-4.7-flash q4_K_M, 32768 tokens of context, KV cache f16, planned for AMD EPYC
# written by glmplan from the plan of 2026-01-01T00:00:00Z for llama-server, machine 0123456789abcdef
# not expressed: LLAMA_ARG_REPACK: read by the llama-server inside Ollama 0.30.0 or newer, not promised by Ollama
# then quit Ollama and start it again
[Environment]::SetEnvironmentVariable('OLLAMA_HOST', '127.0.0.1:11434', 'User')
[Environment]::SetEnvironmentVariable('OLLAMA_CONTEXT_LENGTH', '32768', 'User')
[Environment]::SetEnvironmentVariable('OLLAMA_NUM_PARALLEL', '1', 'User')
[Environment]::SetEnvironmentVariable('OLLAMA_MAX_LOADED_MODELS', '1', 'User')
[Environment]::SetEnvironmentVariable('OLLAMA_KV_CACHE_TYPE', 'f16', 'User')
[Environment]::SetEnvironmentVariable('OLLAMA_FLASH_ATTENTION', '1', 'User')
[Environment]::SetEnvironmentVariable('LLAMA_ARG_FIT', 'off', 'User')
[Environment]::SetEnvironmentVariable('LLAMA_ARG_CACHE_RAM', '0', 'User')
[Environment]::SetEnvironmentVariable('LLAMA_ARG_REPACK', '0', 'User')
==== standard error
warning: LLAMA_ARG_REPACK: read by the llama-server inside Ollama 0.30.0 or newer, not promised by Ollama
