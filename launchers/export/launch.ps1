#Requires -Version 5.1
@HEAD@
#
# Needs PowerShell and llama.cpp's llama-server, nothing else.
# Checks before it starts: the program and its options, the model file and its size, the port.
# $env:LLAMA_SERVER names the program; without it, the llama-server on the PATH is taken.
param(
    [string]$Model = @MODEL@,
    [ValidateRange(1, 65535)][int]$Port = @PORT@,
    [switch]$AnyFile,
    [switch]$DryRun
)
$ErrorActionPreference = 'Stop'
$modelName = @MODEL_NAME@
[long]$minBytes = @MIN_BYTES@
[long]$maxBytes = @MAX_BYTES@
$listenOn = @HOST@
$alias = @ALIAS@

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
@KNOBS@
if ($DryRun) {
    $quoted = @($server) + @($words) | ForEach-Object { "'" + ($_ -replace "'", "''") + "'" }
    '& ' + ($quoted -join ' ')
    exit 0
}
[Console]::Error.WriteLine("$alias on http://${listenOn}:$Port/v1")
$arguments = $words.ToArray()
& $server @arguments
exit $LASTEXITCODE
