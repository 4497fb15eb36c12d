# glm-4.7-flash q4_K_M, 32768 tokens of context, KV cache f16, planned for AMD EPYC
# written by glmplan from the plan of 2026-01-01T00:00:00Z for llama-server, machine 0123456789abcdef
# not expressed: repacking off: LM Studio has no setting for it
# not expressed: batches, threads, flash attention, mmap and sampling: only in the per-model defaults (glmplan export lm-studio-defaults)
lms import --user-repo unsloth/GLM-4.7-Flash-GGUF --symbolic-link --yes /models/GLM-4.7-Flash-Q4_K_M.gguf
lms load unsloth/GLM-4.7-Flash-GGUF/GLM-4.7-Flash-Q4_K_M.gguf --exact --yes --context-length 32768 --gpu off --parallel 1 --identifier glm-4.7-flash
lms server start --port 1234
==== standard error
warning: repacking off: LM Studio has no setting for it
warning: batches, threads, flash attention, mmap and sampling: only in the per-model defaults (glmplan export lm-studio-defaults)
