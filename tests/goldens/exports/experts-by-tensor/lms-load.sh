# glm-4.7-flash q4_K_M, 98304 tokens of context, KV cache f16, planned for NVIDIA GeForce RTX 4060 Ti
# written by glmplan from the plan of 2026-01-01T00:00:00Z for llama-server, machine 0123456789abcdef
# not expressed: experts tensor by tensor: LM Studio moves those of the first 21 layers, and no other tensors
# not expressed: experts of 21 layers in main memory: only in the per-model defaults (glmplan export lm-studio-defaults)
# not expressed: batches, threads, flash attention, mmap and sampling: only in the per-model defaults (glmplan export lm-studio-defaults)
lms import --user-repo unsloth/GLM-4.7-Flash-GGUF --symbolic-link --yes /models/GLM-4.7-Flash-Q4_K_M.gguf
lms load unsloth/GLM-4.7-Flash-GGUF/GLM-4.7-Flash-Q4_K_M.gguf --exact --yes --context-length 98304 --gpu max --parallel 1 --identifier glm-4.7-flash
lms server start --port 1234
==== standard error
warning: experts tensor by tensor: LM Studio moves those of the first 21 layers, and no other tensors
warning: experts of 21 layers in main memory: only in the per-model defaults (glmplan export lm-studio-defaults)
warning: batches, threads, flash attention, mmap and sampling: only in the per-model defaults (glmplan export lm-studio-defaults)
