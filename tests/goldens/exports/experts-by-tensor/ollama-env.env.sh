# glm-4.7-flash q4_K_M, 98304 tokens of context, KV cache f16, planned for NVIDIA GeForce RTX 4060 Ti
# written by glmplan from the plan of 2026-01-01T00:00:00Z for llama-server, machine 0123456789abcdef
# not expressed: LLAMA_ARG_OVERRIDE_TENSOR: read by the llama-server inside Ollama 0.30.0 or newer, not promised by Ollama
# then: ollama serve
export OLLAMA_HOST=127.0.0.1:11434
export OLLAMA_CONTEXT_LENGTH=98304
export OLLAMA_NUM_PARALLEL=1
export OLLAMA_MAX_LOADED_MODELS=1
export OLLAMA_KV_CACHE_TYPE=f16
export OLLAMA_FLASH_ATTENTION=1
export LLAMA_ARG_FIT=off
export LLAMA_ARG_CACHE_RAM=0
export LLAMA_ARG_OVERRIDE_TENSOR='blk\.(1|2|3|4|7|10|13|16|19|22|25|28|31|34|37|40|41|42|43|45)\.ffn_(gate|up|down)_exps=CPU,blk\.(44)\.ffn_(down)_exps=CPU'
==== standard error
warning: LLAMA_ARG_OVERRIDE_TENSOR: read by the llama-server inside Ollama 0.30.0 or newer, not promised by Ollama
