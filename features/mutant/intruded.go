package mutant

// intruded are mutants that forged sources and floods tell from right ones. Their table takes no TCP Fast Open (option 34), as data in a SYN
// would give every one of them away.
func intruded() []Mutant {
	right := plain{established: true, profiles: both, noFastOpen: true}
	anywhere, answering := right, right
	anywhere.anyInterface, answering.redirects = true, true
	return []Mutant{
		byNFT(anywhere, Mutant{
			Name: "the region from everywhere", Breaks: "whoever claims an address of the region is let in, over whatever interface he comes",
			Statement: "X-03", Tags: "@X-03",
		}),
		byNFT(plain{established: true, profiles: both}, Mutant{
			Name: "data in forged SYNs", Breaks: "TCP Fast Open lets in bytes from addresses that nobody has proved to have",
			Statement: "X-03", Tags: "@X-03",
		}),
		byNFT(answering, Mutant{
			Name: "remembers whom it denies", Breaks: "denied attempts are sent to a closed port, and each leaves an entry in connection tracking",
			Statement: "X-10", Tags: "@X-10",
		}),
		byNFT(right, Mutant{
			Name: "another enforcer with intruders", Breaks: "nothing: forged sources and floods get nowhere with it", Tags: "@X-03,@X-10", Conforms: true,
		}),
	}
}
