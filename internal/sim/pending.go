package sim

// What the cores do not do yet is not asked of them; each goes as its part comes.
const (
	leasesGranted  = false
	freezeIsObeyed = false
)
