#Requires -Version 5.1
# glm-4.7-flash q4_K_M, 65536 tokens of context, KV cache f16, planned for NVIDIA GeForce RTX 5090
# written by glmplan from the plan of 2026-01-01T00:00:00Z for llama-server, machine 0123456789abcdef
#
# Needs PowerShell and llama.cpp's llama-server, nothing else.
# Checks before it starts: the program and its options, the model file and its size, the port.
# $env:LLAMA_SERVER names the program; without it, the llama-server on the PATH is taken.
param(
    [string]$Model = '/models/GLM-4.7-Flash-Q4_K_M.gguf',
    [ValidateRange(1, 65535)][int]$Port = 8080,
    [switch]$AnyFile,
    [switch]$DryRun
)
$ErrorActionPreference = 'Stop'
$modelName = 'GLM-4.7-Flash-Q4_K_M.gguf'
[long]$minBytes = 18312339776
[long]$maxBytes = 18312339776
$listenOn = '127.0.0.1'
$alias = 'glm-4.7-flash'

function Stop-With([string]$Message, [string]$Hint, [int]$Status) {
    [Console]::Error.WriteLine("error: $Message")
    [Console]::Error.WriteLine("  try: $Hint")
    exit $Status
}

function Write-Problem([string]$Message, [string]$Hint, [int]$Status) {
    if (-not $DryRun) { Stop-With $Message $Hint $Status }
    [Console]::Error.WriteLine("would fail: $Message")
    [Console]::Error.WriteLine("  try: $Hint")
}

# The program.
$server = $env:LLAMA_SERVER
if (-not $server) {
    $found = Get-Command 'llama-server' -CommandType Application -ErrorAction SilentlyContinue | Select-Object -First 1
    if (-not $found) { Stop-With 'no llama-server on the PATH' 'install llama.cpp, or set $env:LLAMA_SERVER' 4 }
    $server = $found.Source
}
if (-not (Test-Path -LiteralPath $server -PathType Leaf)) {
    Stop-With "LLAMA_SERVER names $server, which is not a program" 'set $env:LLAMA_SERVER' 4
}

# The environment: settings of other launches would change this one; CUDA is to count GPUs as the plan does.
Get-ChildItem -Path Env: | Where-Object { $_.Name -like 'LLAMA_ARG_*' -or $_.Name -in 'LLAMA_API_KEY', 'HF_TOKEN' } |
    ForEach-Object { Remove-Item -LiteralPath "Env:$($_.Name)" }
if (-not $env:CUDA_DEVICE_ORDER) { $env:CUDA_DEVICE_ORDER = 'PCI_BUS_ID' }

# The options of this very build. Windows PowerShell takes a program's standard error for errors of its own.
$ErrorActionPreference = 'Continue'
$help = (& $server '--help' 2>&1 | ForEach-Object { "$_" }) -join "`n"
$ErrorActionPreference = 'Stop'
$options = @($help -split '\r?\n' | Where-Object { $_ -match '^-' } |
    ForEach-Object { ($_ -replace '([^ ,])\s{3,}[^- ].*$', '$1') -split '[ ,]+' } | Where-Object { $_ -like '--*' })
if ($options.Count -eq 0) { Stop-With "$server does not list its options" 'reinstall llama.cpp' 4 }

function Test-Option([string]$Option) { $options -ccontains $Option }

function Assert-Option([string]$Option, [string]$Why) {
    if (-not (Test-Option $Option)) {
        Stop-With "this llama-server has no $Option, which the plan needs for $Why" "update llama.cpp: $server" 4
    }
}

# The model file, all parts of a split one together.
function Get-ModelPart([string]$Path) {
    if ($Path -notmatch '^(?<stem>.*)-\d{5}-of-(?<count>\d{5})\.gguf$') { return $Path }
    $stem, $count = $Matches['stem'], $Matches['count']
    1..[int]$count | ForEach-Object { '{0}-{1:d5}-of-{2}.gguf' -f $stem, $_, $count }
}

function Test-Model {
    if (-not $Model) {
        return Write-Problem 'the plan names no model file' "-Model PATH of $modelName" 2
    }
    foreach ($part in @(Get-ModelPart $Model)) {
        if (-not (Test-Path -LiteralPath $part -PathType Leaf)) {
            return Write-Problem "the model file $part is not on this machine" "download $modelName, or -Model PATH" 2
        }
    }
    $stream = [IO.File]::OpenRead((Resolve-Path -LiteralPath $Model).ProviderPath)
    $magic = New-Object byte[] 4
    try { $null = $stream.Read($magic, 0, 4) } finally { $stream.Dispose() }
    if ([Text.Encoding]::ASCII.GetString($magic) -cne 'GGUF') {
        return Write-Problem "$Model is not a GGUF file" '-Model PATH of a GGUF file' 2
    }
    $bytes = (@(Get-ModelPart $Model) | ForEach-Object { (Get-Item -LiteralPath $_).Length } | Measure-Object -Sum).Sum
    if (-not $AnyFile -and ($bytes -lt $minBytes -or $bytes -gt $maxBytes)) {
        Write-Problem "$Model is incomplete or another file: $bytes bytes, the plan's has $minBytes to $maxBytes" `
            'finish the download, or -AnyFile' 2
    }
}

# The port.
function Test-Port {
    $listeners = [Net.NetworkInformation.IPGlobalProperties]::GetIPGlobalProperties().GetActiveTcpListeners()
    if (@($listeners | Where-Object { $_.Port -eq $Port }).Count -gt 0) {
        Write-Problem "port $Port is in use" '-Port N, or stop what listens there' 4
    }
}

Test-Model
Test-Port

# The command: what the plan cannot do without is asserted, the rest is taken where this build has it.
$words = New-Object 'System.Collections.Generic.List[string]'
Assert-Option '--model' 'the model file'
$words.AddRange([string[]]('--model', $Model))
if (Test-Option '--alias') { $words.AddRange([string[]]('--alias', $alias)) }
Assert-Option '--host' 'the address'
$words.AddRange([string[]]('--host', $listenOn))
Assert-Option '--port' 'the port'
$words.AddRange([string[]]('--port', "$Port"))
if (Test-Option '--fit') { $words.AddRange([string[]]('--fit', 'off')) }
Assert-Option '--ctx-size' 'the context'
$words.AddRange([string[]]('--ctx-size', '65536'))
if (Test-Option '--parallel') { $words.AddRange([string[]]('--parallel', '1')) }
if (Test-Option '--kv-unified') { $words.Add('--kv-unified') }
Assert-Option '--batch-size' 'the batch size'
$words.AddRange([string[]]('--batch-size', '2048'))
Assert-Option '--ubatch-size' 'the ubatch size'
$words.AddRange([string[]]('--ubatch-size', '512'))
Assert-Option '--cache-type-k' 'the KV cache type'
$words.AddRange([string[]]('--cache-type-k', 'f16'))
Assert-Option '--cache-type-v' 'the KV cache type'
$words.AddRange([string[]]('--cache-type-v', 'f16'))
if (Test-Option '--cache-ram') { $words.AddRange([string[]]('--cache-ram', '2048')) }
if (Test-Option '--n-gpu-layers') {
    $words.AddRange([string[]]('--n-gpu-layers', '48'))
} else {
    Assert-Option '--gpu-layers' 'GPU offload'
    $words.AddRange([string[]]('--gpu-layers', '48'))
}
if (Test-Option '--load-mode') {
    $words.AddRange([string[]]('--load-mode', 'mmap'))
}
Assert-Option '--threads' 'the thread count'
$words.AddRange([string[]]('--threads', '8'))
if (Test-Option '--threads-batch') { $words.AddRange([string[]]('--threads-batch', '8')) }
Assert-Option '--flash-attn' 'the flash attention setting'
$words.AddRange([string[]]('--flash-attn', 'on'))
if (Test-Option '--jinja') { $words.Add('--jinja') }
if (Test-Option '--temp') { $words.AddRange([string[]]('--temp', '1')) }
if (Test-Option '--top-p') { $words.AddRange([string[]]('--top-p', '0.95')) }
if (Test-Option '--min-p') { $words.AddRange([string[]]('--min-p', '0.01')) }
if (Test-Option '--repeat-penalty') { $words.AddRange([string[]]('--repeat-penalty', '1')) }
if (Test-Option '--metrics') { $words.Add('--metrics') }
if (Test-Option '--offline') { $words.Add('--offline') }
if (Test-Option '--no-webui') {
    $words.Add('--no-webui')
} else {
    if (Test-Option '--no-ui') { $words.Add('--no-ui') }
}
if (Test-Option '--cors-origins') { $words.AddRange([string[]]('--cors-origins', 'localhost')) }
if ($DryRun) {
    $quoted = @($server) + @($words) | ForEach-Object { "'" + ($_ -replace "'", "''") + "'" }
    '& ' + ($quoted -join ' ')
    exit 0
}
[Console]::Error.WriteLine("$alias on http://${listenOn}:$Port/v1")
$arguments = $words.ToArray()
& $server @arguments
exit $LASTEXITCODE
