// The page Disk: looked at again when a job ends or a model comes or goes.

import { followJobs, Fragment, installDialogs } from "./fragment.js";
import { live } from "./live.js";

const part = new Fragment("disk");
live.on("catalog", (models) => part.changed("catalog", models.map(({ id }) => id)));
followJobs(part);
installDialogs();
