package api

// EventReason is a word that events give, and what it means to whoever reads it.
type EventReason struct {
	// Reason is the CamelCase word, Of the kinds of objects it is told of.
	Reason string
	Of     []string
	// Means what happened; Do is what to do about it, empty where nothing is to be done.
	Means, Do string
}

// EventReasons are all reasons of events, in the order in which docs/troubleshooting.md
// tells them. An event with another one fails the tests.
var EventReasons = []EventReason{
	{"Created", []string{KindService, KindJob, KindConfig, KindSecret, KindVolume}, "somebody made it; a volume is made with the first placement of its slot", ""},
	{"Configured", []string{KindService, KindJob}, "an apply, a scale or a changed Config changed it; the message names the revision and who did it", ""},
	{"Changed", []string{KindConfig, KindSecret}, "it has a new version, which what uses it is rolled out with", ""},
	{"Deleting", []string{KindService, KindJob}, "somebody deleted it, or a job's ttlAfterFinished has passed; its replicas stop", ""},
	{"Deleted", []string{KindService, KindJob, KindConfig, KindSecret}, "nothing of it is left", ""},

	{"Placed", []string{KindReplica}, "it has a node; the message says why it was wanted and by what the node was chosen", ""},
	{"SparePlaced", []string{KindReplica}, "its node cannot be reached, and another replica stands in for it", "`orchctl describe node` tells what is held of that node"},
	{"Relieving", []string{KindReplica}, "its node does not work as it should, and it is started elsewhere before it stops there", "`orchctl describe node`"},
	{"Moving", []string{KindReplica}, "a rebalance moves it to where it fits better", ""},
	{"TriedElsewhere", []string{KindReplica}, "it ends again and again while its siblings are well, and is tried on another node", "look at its last output: `orchctl describe replica`"},
	{"Adopted", []string{KindReplica}, "the spare is the replica now", ""},
	{"Pending", []string{KindReplica}, "no node takes it", "`orchctl describe replica` says what would help; see [Pending](#pending)"},
	{"Stopping", []string{KindReplica}, "it is to stop; the message says why", ""},
	{"Lost", []string{KindReplica}, "its node's life is over, and it with it; its slot is filled again", ""},
	{"Ready", []string{KindReplica}, "it gets traffic", ""},
	{"NotReady", []string{KindReplica}, "its readiness probe fails or a container of it does not run: it gets no traffic", "`orchctl logs`, and what the message says of the probe"},

	{ExitCompleted, []string{KindReplica, KindJob}, "a container ended with code 0; of a job, an index did", ""},
	{ExitError, []string{KindReplica}, "a container ended with another code than 0", "its last output is in `orchctl describe replica`, all of it in `orchctl logs --previous`"},
	{ExitSignaled, []string{KindReplica}, "a signal ended a container, not sent by orch", "137 is SIGKILL: who sent it? 139 is SIGSEGV: a fault of the program"},
	{ExitOutOfMemory, []string{KindReplica}, "the kernel killed a container for want of memory", "raise its memory limit, or have it use less"},
	{ExitLivenessFailed, []string{KindReplica}, "its liveness probe failed, and it was restarted", "is the probe too strict, or the program stuck?"},
	{ExitStartupFailed, []string{KindReplica}, "its startup probe failed for too long, and it was restarted", "give the probe more time: failureThreshold times interval"},
	{ExitHookFailed, []string{KindReplica}, "its postStart hook failed, and it was stopped", "what the hook wrote is in `orchctl describe replica`"},
	{ExitStartFailed, []string{KindReplica}, "its command could not be run: not found is code 127, not allowed 126", "look at command, image and user"},
	{"Killed", []string{KindReplica}, "it did not stop within its grace and was killed", "have it heed its stop signal, or raise terminationGracePeriod"},

	{ReasonBackOff, []string{KindReplica}, "a container ends again and again, and waits longer before each start", "its last exit says why"},
	{ReasonImageMissing, []string{KindReplica}, "the image is not on the node and nowhere to be had: its registry does not have it, refuses the login, or is not known", "the message says which: check its name and tag, or the login; `orchctl image load` brings one to the nodes"},
	{ReasonRegistryUnreachable, []string{KindReplica}, "the image is not on the node, and its registry does not answer, is not trusted, or refuses more requests; no rollout is taken back for it before its progressDeadline", "the message says which; [docs/images.md](images.md)"},
	{ReasonImageError, []string{KindReplica}, "the image cannot be pulled or unpacked: the disk is full, the platform is another, bytes are not what their digest says", "the message says which; [docs/images.md](images.md)"},
	{ReasonNetworkError, []string{KindReplica}, "its network cannot be set up", "`agent check` on that node"},
	{"NotThere", []string{KindReplica}, "its agent does not know of it any more, and is told of it again", ""},
	{ReasonCreateError, []string{KindReplica}, "containerd cannot make the container", "the message is containerd's; `agent check` on that node"},
	{ReasonBindRefused, []string{KindReplica}, "the node's agent does not allow that path to be mounted", "allow it with the agent's --allow-bind, or mount something else"},
	{ReasonConfigMissing, []string{KindReplica}, "a version of a Config or Secret is not on its node yet: secrets are not kept on disk and come with the next session", "wait for the agent's session; `orchctl get nodes`"},
	{ReasonConfigError, []string{KindReplica}, "what it takes of a Config or Secret cannot be used as it is", "the message names the key"},
	{ReasonVolumeError, []string{KindReplica}, "a volume cannot be made or mounted on its node", "look at the node's disk"},
	{ReasonNoLease, []string{KindReplica}, "it runs only under a lease and was not given one yet", "wait: the lease of the one before has to end first"},
	{ReasonLeaseLost, []string{KindReplica}, "its node could not renew its lease: it stopped, and starts when one is granted", "is the node cut off from the controllers?"},

	{"RolloutComplete", []string{KindService}, "the newest revision is in all its replicas", ""},
	{"CanaryStep", []string{KindService}, "a step of the canary is done", "`orchctl rollout resume` where it waits for you"},
	{"RolloutFailed", []string{KindService}, "the newest revision failed, and nothing is gone back to", "the message says what failed; apply a better one or `orchctl rollout undo`"},
	{"RolledBack", []string{KindService}, "the newest revision failed, and the service went back to the last that was well", "the message says what failed"},
	{"Paused", []string{KindService}, "somebody paused its rollout", "`orchctl rollout resume`"},
	{"Resumed", []string{KindService}, "somebody had its rollout go on", ""},
	{"ImagePinned", []string{KindService, KindJob}, "what a tag means was not known when it was applied; the first replica's node has told", ""},

	{"TryFailed", []string{KindJob}, "a try of an index failed, and is made anew as backoffLimit allows", "`orchctl describe job` has its exit and last output"},
	{"Complete", []string{KindJob}, "all its indexes completed", ""},
	{"Failed", []string{KindJob}, "more tries failed than may, or its deadline has passed", "`orchctl describe job`"},

	{"Removing", []string{KindVolume}, "somebody removed it; its node deletes what is in it", ""},
	{"Removed", []string{KindVolume, KindNode}, "it is no more; of a volume, also what was in it", ""},

	{"Joined", []string{KindNode}, "an agent joined with this name", ""},
	{"Cordoned", []string{KindNode}, "somebody wants nothing new placed there", "`orchctl uncordon`"},
	{"Uncordoned", []string{KindNode}, "it gets new replicas again", ""},
	{"DrainStarted", []string{KindNode}, "somebody wants it empty", ""},
	{"Drained", []string{KindNode}, "nothing runs there any more", ""},
	{"DrainDeadline", []string{KindNode}, "the drain's deadline has passed, and what is left is stopped as far as floors allow", ""},
	{"DrainAborted", []string{KindNode}, "somebody ended the drain before its end", ""},
	{string(VerdictUnknown), []string{KindNode}, "nothing is known of it in this leader's term", ""},
	{string(VerdictHealthy), []string{KindNode}, "it beats", ""},
	{string(VerdictAgentLost), []string{KindNode}, "its agent is silent, but the host answers: its containers run on", "is the agent running? `systemctl status orch-agent` there"},
	{string(VerdictSuspect), []string{KindNode}, "nobody gets an answer from it: its replicas lose their traffic, and spares stand in", "is it up, and its network?"},
	{string(VerdictDead), []string{KindNode}, "it was silent for a minute, has booted anew, or an admin said so: what was placed there is placed elsewhere", "`orchctl node remove` if it does not come back"},
	{string(VerdictBack), []string{KindNode}, "it is heard again; of each replica and its spare one goes", ""},
	{"Rebooted", []string{KindNode}, "its host has booted anew", ""},
	{"Impaired", []string{KindNode}, "it beats, but its own checks fail: it gets nothing new, and is relieved after 30 s", "the message says which check; `agent check` there"},
	{"Works", []string{KindNode}, "its own checks are well again", ""},
	{"Damped", []string{KindNode}, "it went and came back too often: it gets nothing new for a while", "find out why it goes"},
	{"Undamped", []string{KindNode}, "it gets new replicas again", ""},
	{"NoSubnet", []string{KindNode}, "it has no addresses for replicas", "the message says why: mostly the cluster's range is used up or overlaps"},
	{"Subnet", []string{KindNode}, "it has addresses for replicas", ""},
	{"NodeCloned", []string{KindNode}, "another machine says that it is this node, with the same key: it was refused", "give the copy a name and key of its own: delete its agent's data and join it"},
	{"OrphansRemoved", []string{KindNode}, "containers of another life of the cluster were removed from it, as somebody asked", ""},

	{"LeaderElected", []string{KindFleet}, "another term began: a controller leads", ""},
	{"Frozen", []string{KindFleet}, "so many nodes vanished at once that none is taken for dead of silence", "is the network between controllers and nodes up? `orchctl describe fleet`, `orchctl fleet thaw`"},
	{"Thawed", []string{KindFleet}, "verdicts are given again", ""},
	{"Rebalancing", []string{KindFleet}, "somebody has replicas moved to where they fit better", ""},
}
