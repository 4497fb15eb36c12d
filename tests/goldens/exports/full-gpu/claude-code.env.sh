# glm-4.7-flash q4_K_M, 65536 tokens of context, KV cache f16, planned for NVIDIA GeForce RTX 5090
# written by glmplan from the plan of 2026-01-01T00:00:00Z for llama-server, machine 0123456789abcdef
# not expressed: sampling: the server's defaults hold (temperature 0.7, top_p 1)
# then: claude --model glm-4.7-flash
export ANTHROPIC_BASE_URL=http://127.0.0.1:8080
export ANTHROPIC_AUTH_TOKEN=none
export ANTHROPIC_API_KEY=''
export ANTHROPIC_DEFAULT_OPUS_MODEL=glm-4.7-flash
export ANTHROPIC_DEFAULT_SONNET_MODEL=glm-4.7-flash
export ANTHROPIC_DEFAULT_HAIKU_MODEL=glm-4.7-flash
export CLAUDE_CODE_SUBAGENT_MODEL=glm-4.7-flash
export CLAUDE_CODE_ATTRIBUTION_HEADER=0
export CLAUDE_CODE_AUTO_COMPACT_WINDOW=65536
export CLAUDE_CODE_MAX_OUTPUT_TOKENS=16384
export CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1
==== standard error
warning: sampling: the server's defaults hold (temperature 0.7, top_p 1)
