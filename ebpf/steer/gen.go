package steer

//go:generate go tool bpf2go -cc clang -target bpfel,bpfeb -tags linux -type worker -type rule plain policy.c -- -O2 -g -Wall -Werror -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu
//go:generate go tool bpf2go -cc clang -target bpfel,bpfeb -tags linux migrate policy.c -- -O2 -g -Wall -Werror -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu -DMIGRATE
