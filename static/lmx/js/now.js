// The first page.

import { installCards } from "./cards.js";
import { installChat } from "./chat.js";
import { installChart } from "./chart.js";
import { installEvents } from "./events.js";
import { installFlight } from "./flight.js";

installChart();
installCards();
installFlight();
installEvents();
installChat();
