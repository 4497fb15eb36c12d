# glm-4.7-flash q4_K_M, 65536 tokens of context, KV cache f16, planned for NVIDIA GeForce RTX 5090
# written by glmplan from the plan of 2026-01-01T00:00:00Z for llama-server, machine 0123456789abcdef
# not expressed: sampling and thinking: requests must say so (temperature 1, top_p 0.95)
# model name: glm-4.7-flash
export OPENAI_BASE_URL=http://127.0.0.1:8080/v1
export OPENAI_API_KEY=none
==== standard error
warning: sampling and thinking: requests must say so (temperature 1, top_p 0.95)
