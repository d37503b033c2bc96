// Package labcmd is the command tree `orchctl lab`: words and flags for what
// package lab does, and nothing decided here.
//
//	orchctl lab up|down|list|status|add           the lab
//	            kill|start|stun|pause|resume NODE its hosts
//	            cut|heal|loss                     its network
//	            kill-agent|start-agent|...        its programs
//	            exec                              inside it
//
// Errors carry the exit code that they call for, by a method ExitCode: 2 for
// bad usage, that of the program for exec; all others are a plain 1.
package labcmd
