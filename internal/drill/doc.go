// Package drill runs scripted faults against a lab and checks what is promised:
//
//	spec:
//	  services: [web.yaml]
//	  steps:
//	    - kill n2
//	    - expect web 6/6 within 2s
//	    - expect wrongful 0
//
// It owns the language of drills, and the count of what died without a cause.
// It looks at a fleet from outside: at what the leader holds by the API's
// watches, and at what really runs by the kernel's cgroups. It never trusts the
// first alone: a replica counts as running when both say so.
//
// Invariant: after a drill, passed or failed, the lab is whole again and its
// services are gone.
//
//	drill.yaml ──Load──► Drill ──Run──► lab: faults
//	                              ├───► orchctl: apply, scale, delete
//	                              ├◄─── follow: what the leader holds
//	                              └◄─── lab.Containers: what runs   ──► Result
package drill
