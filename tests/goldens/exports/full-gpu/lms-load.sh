# glm-4.7-flash q4_K_M, 65536 tokens of context, KV cache f16, planned for NVIDIA GeForce RTX 5090
# written by glmplan from the plan of 2026-01-01T00:00:00Z for llama-server, machine 0123456789abcdef
# not expressed: a prompt cache of 2147483648 bytes: LM Studio decides
# not expressed: batches, threads, flash attention, mmap and sampling: only in the per-model defaults (glmplan export lm-studio-defaults)
lms import --user-repo unsloth/GLM-4.7-Flash-GGUF --symbolic-link --yes /models/GLM-4.7-Flash-Q4_K_M.gguf
lms load unsloth/GLM-4.7-Flash-GGUF/GLM-4.7-Flash-Q4_K_M.gguf --exact --yes --context-length 65536 --gpu max --parallel 1 --identifier glm-4.7-flash
lms server start --port 1234
==== standard error
warning: a prompt cache of 2147483648 bytes: LM Studio decides
warning: batches, threads, flash attention, mmap and sampling: only in the per-model defaults (glmplan export lm-studio-defaults)
