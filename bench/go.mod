module github.com/gopherpack/gopherpack/bench

go 1.26.0

replace github.com/gopherpack/gopherpack => ../

require (
	github.com/HdrHistogram/hdrhistogram-go v1.4.0
	github.com/gopherpack/gopherpack v0.0.0
	github.com/summerwind/h2spec v2.2.1+incompatible
	github.com/valyala/fasthttp v1.78.0
	golang.org/x/net v0.62.0
	golang.org/x/sys v0.49.0
)

require (
	github.com/KimMachineGun/automemlimit v1.0.1 // indirect
	github.com/cilium/ebpf v0.22.0 // indirect
	github.com/fatih/color v1.19.0 // indirect
	github.com/klauspost/compress v1.20.3 // indirect
	github.com/libp2p/go-reuseport v0.4.0 // indirect
	github.com/mattn/go-colorable v0.1.14 // indirect
	github.com/mattn/go-isatty v0.0.20 // indirect
	github.com/molecule-man/go-brrr v1.3.1 // indirect
	github.com/pbnjay/memory v0.0.0-20210728143218-7b4eea64cf58 // indirect
	github.com/valyala/bytebufferpool v1.0.0 // indirect
	golang.org/x/text v0.43.0 // indirect
)
