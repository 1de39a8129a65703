// The patrol's page: one queue, live, through /v1/alerts/stream. It shows what
// the server says and sends what the officer presses; it decides nothing.
//
// The stream is read with fetch, because EventSource can send no token. Every
// message has the id of its place in the queue: after a break the page asks for
// what came after the last one, so that nothing is missed.

// Words, in the language of the patrols.

const PRIORITIES = {
  critical: { word: 'CRITIQUE', shape: '▲', rank: 0 },
  high: { word: 'HAUTE', shape: '◆', rank: 1 },
  medium: { word: 'MOYENNE', shape: '●', rank: 2 },
  info: { word: 'INFO', shape: '■', rank: 3 },
};

const ACTIONS = {
  intercept: { order: 'INTERPELLER', then: 'après vérification de la plaque' },
  inquiry: { order: 'CONTRÔLE D’INVESTIGATION', then: 'questionner, sans fouille' },
  specific: { order: 'CONTRÔLE SPÉCIFIQUE', then: 'personnes, véhicule et objets' },
  discreet: { order: 'NE PAS ARRÊTER', then: 'contrôle discret : observer, ne rien laisser paraître' },
  inform: { order: 'NE PAS ARRÊTER', then: 'pour information : signaler' },
};

const STATES = {
  new: 'Nouvelle',
  taken: 'Prise',
  confirmed: 'Conforme',
  rejected: 'Écartée',
  closed: 'Close',
};

const OUTCOMES = {
  misread: 'Mal lu : la plaque du véhicule est autre',
  wrong_country: 'Mauvais pays : même texte, autre pays',
  not_our_target: 'Bonne plaque, mais pas le véhicule recherché',
  stale_entry: 'Fiche périmée : elle aurait dû être levée',
  intercepted: 'Véhicule intercepté',
  observed: 'Observé et signalé, non arrêté',
  not_located: 'Non retrouvé',
  no_action: 'Sans suite',
};

// The outcomes that each verb must give, see alert.Outcomes.
const REJECT = ['misread', 'wrong_country', 'not_our_target', 'stale_entry'];
const CLOSE = ['intercepted', 'observed', 'not_located', 'no_action'];

const REASONS = {
  'entry withdrawn': 'La fiche a été retirée de la liste.',
  'the camera now reads another plate': 'La caméra lit maintenant une autre plaque.',
};

const GRADES = { high: 'forte', medium: 'moyenne', low: 'faible' };

// Times, in milliseconds.

const SILENCE = 12_000; // two heartbeats missed: the link is lost
const GRACE = 3_000; // a break shorter than this raises no alarm
const BACKOFF = 500; // first pause before another try
const BACKOFF_MAX = 15_000;
const OLD = 10 * 60_000; // an alert older than this is shown as such
const SETTLE = 350; // after a card has changed, presses meant for the one before are dropped
const SETTLED = 400; // the past of a queue has come when nothing came for so long
const FRESH = 60_000; // an alert older than this came with the past: it makes no sound
const KEEP = 300; // alerts kept in the list

const $ = (id) => document.getElementById(id);

// el makes an element. Text only ever goes in as text.
function el(tag, attrs, ...children) {
  const e = document.createElement(tag);
  for (const [name, value] of Object.entries(attrs ?? {})) {
    if (name === 'onclick') e.addEventListener('click', value);
    else if (value === true) e.setAttribute(name, '');
    else if (value !== false && value != null) e.setAttribute(name, value);
  }
  e.append(...children.filter((c) => c != null && c !== false));
  return e;
}

// clean drops what could make a text look like another: control characters and
// marks that turn the direction of writing.
const clean = (text) => String(text ?? '').replace(/[\p{Cc}\u200e\u200f\u202a-\u202e\u2066-\u2069]/gu, '');

// Plates.

const SIV = /^[A-HJ-NP-TV-Z]{2}\d{3}[A-HJ-NP-TV-Z]{2}$/;
const FNI = /^\d{1,4}[A-Z]{1,3}(\d{2}|2[AB]|97\d)$/;

// grouping says before which characters a plate is divided, and by what: French
// plates as on the vehicle, others as they were written, since in some countries
// the gap tells two plates apart.
function grouping({ text, country, raw }) {
  if (!country || country === 'FR') {
    if (SIV.test(text)) return { cuts: [2, 5], mark: '-' };
    const fni = text.match(FNI);
    if (fni) return { cuts: [text.search(/[A-Z]/), text.length - fni[1].length], mark: ' ' };
  }
  const cuts = [];
  let n = 0;
  for (const c of clean(raw).toUpperCase()) {
    if (c === text[n]) n++;
    else if (/[A-Z0-9]/.test(c)) return { cuts: [], mark: '' };
    else if (n > 0 && n < text.length && cuts.at(-1) !== n) cuts.push(n);
  }
  return n === text.length ? { cuts, mark: ' ' } : { cuts: [], mark: '' };
}

function grouped(plate) {
  const { cuts, mark } = grouping(plate);
  return [...plate.text].map((c, i) => (cuts.includes(i) ? mark + c : c)).join('');
}

const readPlate = ({ match, read }) => ({ text: match.read, country: read.country, raw: read.plate });
const entryPlate = ({ match, entry }) => ({ text: match.entry, country: entry.country, raw: entry.plate });

// plate draws a plate, one box to a character, so that two of them can be
// compared from top to bottom. differs are the positions to mark.
function plate({ text, country }, { cuts, mark }, differs, kind) {
  const chars = [];
  [...text].forEach((c, i) => {
    if (cuts.includes(i)) chars.push(el('span', { class: 'gap' }, mark));
    chars.push(differs.includes(i) ? el('mark', { class: 'ch' }, c) : el('span', { class: 'ch' }, c));
  });
  const row = el('span', { class: `plate ${kind}`, role: 'img', 'aria-label': spelled(text, country) },
    el('span', { class: 'band', 'aria-hidden': 'true' }, country || '?'),
    el('span', { class: 'chars', 'aria-hidden': 'true' }, ...chars));
  row.style.setProperty('--n', String(Math.max(text.length, 7) + cuts.length * 0.55));
  return row;
}

// spelled is a plate for a voice: character by character.
const spelled = (text, country) => `${[...text].join(' ')}${country ? `, ${countryName(country)}` : ''}`;

const regions = new Intl.DisplayNames(['fr'], { type: 'region', fallback: 'code' });
function countryName(code) {
  if (!/^[A-Z]{2}$/.test(code ?? '')) return '';
  try { return regions.of(code); } catch { return code; }
}

// State of the page.

const session = { token: '', queue: '', actor: '' };
const alerts = new Map(); // id -> {alert, state, step, actor, at, outcome, withdrawn, against}
let focused = ''; // id of the alert on the card
let shown = 0; // when the card last changed, by performance.now
let replaying = 0; // timer of the queue's past, 0 once it has come
let skew = 0; // clock of the server minus ours

const now = () => Date.now() + skew;
const finished = (a) => Boolean(a.withdrawn) || a.state === 'rejected' || a.state === 'closed';
const mine = (a) => Boolean(a.actor) && a.actor === session.actor;

// The link.

class HTTPError extends Error {
  constructor(status, problem) {
    super(problem?.detail || problem?.title || `HTTP ${status}`);
    this.status = status;
    this.problem = problem;
  }
}

async function request(path, init = {}) {
  const res = await fetch(path, {
    ...init,
    cache: 'no-store',
    headers: { ...init.headers, Authorization: `Bearer ${session.token}` },
  });
  if (!res.ok) throw new HTTPError(res.status, await res.json().catch(() => null));
  return res;
}

const link = {
  state: 'off', // off, wait, live, lost
  since: 0, // when the link broke, 0 while it holds
  heard: 0, // when the last byte came, by performance.now
  lastID: '',
  missed: 0, // alerts received since the last connection
  abort: null,
  turn: 0, // counts services, so that the loop of an ended one stops

  get running() { return this.state !== 'off'; },

  async run() {
    const turn = ++this.turn;
    this.lastID = '';
    clearTimeout(replaying);
    replaying = setTimeout(settle, 10_000);
    this.heard = performance.now();
    this.set('wait');
    let pause = BACKOFF;
    for (;;) {
      const started = performance.now();
      let refused = 0;
      try {
        await this.follow();
      } catch (err) {
        refused = err.status;
      }
      if (turn !== this.turn) return;
      if (refused === 401 || refused === 403) {
        leave(refused === 401 ? 'Ce jeton n’est pas reconnu.' : 'Ce jeton ne donne pas accès à cette file.');
        return;
      }
      if (performance.now() - started > 30_000) pause = BACKOFF;
      this.broken();
      await new Promise((done) => setTimeout(done, pause * (0.5 + Math.random())));
      if (turn !== this.turn) return;
      pause = Math.min(pause * 2, BACKOFF_MAX);
    }
  },

  stop() {
    this.turn++;
    this.abort?.abort();
    this.set('off');
  },

  // follow reads the stream until it breaks.
  async follow() {
    const abort = this.abort = new AbortController();
    const started = performance.now();
    const watch = setInterval(() => {
      if (performance.now() - Math.max(this.heard, started) > SILENCE) abort.abort();
    }, 1000);
    try {
      const res = await request(`/v1/alerts/stream?queue=${encodeURIComponent(session.queue)}`, {
        headers: { Accept: 'text/event-stream', ...(this.lastID && { 'Last-Event-ID': this.lastID }) },
        signal: abort.signal,
      });
      const served = Date.parse(res.headers.get('Date'));
      if (served) skew = Math.abs(served - Date.now()) > 2000 ? served - Date.now() : 0;
      const wasLost = this.since !== 0;
      this.missed = 0;
      this.heard = performance.now();
      this.set('live');
      if (wasLost) recheck();
      const reader = res.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = '';
      for (;;) {
        const { value, done } = await reader.read();
        if (done) return;
        this.heard = performance.now();
        rest = (rest + value).replaceAll('\r\n', '\n');
        const parts = rest.split('\n\n');
        rest = parts.pop();
        for (const part of parts) this.message(part);
        if (wasLost && this.missed > 0) {
          say(`${plural(this.missed, 'alerte reçue', 'alertes reçues')} pendant la coupure.`);
        }
      }
    } finally {
      clearInterval(watch);
      abort.abort();
    }
  },

  message(text) {
    let id = '', event = 'message';
    const data = [];
    for (const line of text.split('\n')) {
      const at = line.indexOf(':');
      if (at <= 0) continue; // a comment: the heartbeat
      const value = line.slice(line[at + 1] === ' ' ? at + 2 : at + 1);
      const name = line.slice(0, at);
      if (name === 'id') id = value;
      else if (name === 'event') event = value;
      else if (name === 'data') data.push(value);
    }
    if (data.length > 0) receive(event, JSON.parse(data.join('\n')));
    if (id) this.lastID = id; // after it was taken in, never before
  },

  // broken says so at once when the line was silent, and otherwise when it is
  // not back within moments: a server that restarts is no alarm.
  broken() {
    if (this.state === 'live') {
      this.since = now();
      this.set('wait');
    }
    if (this.since && performance.now() - this.heard > GRACE && this.state !== 'lost') {
      this.set('lost');
      tone('lost');
    }
  },

  set(state) {
    if (state === 'live' || state === 'off') this.since = 0;
    this.state = state;
    showLink();
  },
};

function receive(event, data) {
  switch (event) {
    case 'hello':
      session.actor = data.actor;
      render();
      return;
    case 'alert': {
      if (alerts.has(data.id)) return;
      alerts.set(data.id, { alert: data, state: 'new', step: 1, actor: '', at: data.created });
      link.missed++;
      forgetOldest();
      if (replaying) settleSoon();
      arrived(data);
      break;
    }
    case 'update': {
      const a = alerts.get(data.alert);
      if (!a || data.step <= a.step) return;
      apply(a, data);
      if (data.outcome === 'other_plate') against(a);
      break;
    }
    case 'amended':
      amend(data);
      break;
    case 'withdrawn': {
      const a = alerts.get(data.id);
      if (!a || data.step <= a.step) return;
      if (data.step) a.step = data.step;
      if (finished(a)) return;
      a.withdrawn = data.reason || 'entry withdrawn';
      tone('withdrawn');
      announce(`Alerte retirée, ne pas intervenir. ${REASONS[a.withdrawn] ?? clean(a.withdrawn)}`);
      if (focused === data.id) {
        shown = performance.now();
        $('sheet').close();
      }
      break;
    }
    default:
      return;
  }
  render();
}

// apply takes a step in, unless a later one is known. What a camera says changes neither
// who has the alert nor since when.
function apply(a, event) {
  if (event.step <= a.step) return;
  if (event.revision) Object.assign(a, { state: event.state, step: event.step });
  else Object.assign(a, { state: event.state, step: event.step, at: event.at, outcome: event.outcome || '', actor: event.actor || a.actor });
}

// against says that the camera now reads another plate: after somebody took the alert, or
// with less certainty than before.
function against(a) {
  a.against = true;
  if (finished(a)) return;
  if (focused === a.alert.id) shown = performance.now();
  tone('withdrawn');
  announce('Attention : la caméra lit maintenant une autre plaque. Comparez avec le véhicule.');
}

// amend puts what the camera reads now in the place of what it read before. It sounds
// when the alert comes back, and when it asks for a stop that it did not ask for.
function amend(event) {
  let a = alerts.get(event.alert);
  if (a && event.step <= a.step) return;
  const before = a?.alert;
  if (!a) alerts.set(event.alert, a = { state: event.state, step: 0, actor: '', at: event.at });
  const back = !before || Boolean(a.withdrawn) && event.state === 'new';
  a.alert = back ? event.amended : { ...event.amended, created: before.created };
  a.against = false;
  apply(a, event);
  if (focused === event.alert) shown = performance.now();
  if (back) {
    Object.assign(a, { withdrawn: '', seen: false });
    link.missed++;
    forgetOldest();
    if (replaying) settleSoon();
  }
  if (back || (a.alert.stop && !before.stop && !finished(a))) arrived(a.alert);
  else if (!finished(a)) announce(`Lecture précisée. ${spelled(a.alert.match.read, a.alert.read.country)}.`);
}

// arrived shows a new alert at once when nobody is busy with another; otherwise
// it waits in the list, and a button over the card says so.
function arrived(alert) {
  const current = alerts.get(focused);
  if (!replaying && (!current || (finished(current) && !$('sheet').open))) focus(alert.id);
  if (now() - alert.created > FRESH) return;
  const p = PRIORITIES[alert.priority] ?? PRIORITIES.info;
  announce(`${p.word}. ${order({ alert }).order}. ${spelled(alert.match.read, alert.read.country)}. ${clean(alert.list.name)}.`);
  tone(alert.late ? 'info' : alert.priority);
}

// A stream begins with the past of the queue. Once that has come, the alert that
// matters most is shown: not the oldest one, which came first.
function settleSoon() {
  clearTimeout(replaying);
  replaying = setTimeout(settle, SETTLED);
}

function settle() {
  replaying = 0;
  if (focused) return;
  const [first] = [...alerts.values()].filter((a) => !finished(a)).sort((x, y) =>
    (x.state !== 'new') - (y.state !== 'new') || rank(x) - rank(y) || y.alert.created - x.alert.created);
  if (first) focus(first.alert.id);
  render();
}

const rank = (a) => (PRIORITIES[a.alert.priority] ?? PRIORITIES.info).rank;

function forgetOldest() {
  for (const [id, a] of alerts) {
    if (alerts.size <= KEEP) return;
    if (finished(a) && id !== focused) alerts.delete(id);
  }
}

// recheck asks about the alerts on the page after a break: an entry may have
// been withdrawn meanwhile.
async function recheck() {
  for (const [id, a] of alerts) {
    if (finished(a)) continue;
    try {
      await request(`/v1/alerts/${encodeURIComponent(id)}`);
    } catch (err) {
      if (err.status === 410) receive('withdrawn', { id, reason: 'entry withdrawn' });
      else if (!(err instanceof HTTPError)) return; // lost again; the next return asks again
    }
  }
}

// What the officer does.

let busy = false;

async function step(id, verb, body) {
  if (busy) return false;
  busy = true;
  complain('');
  render();
  try {
    const res = await request(`/v1/alerts/${encodeURIComponent(id)}/${verb}`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify(body ?? {}),
    });
    const a = alerts.get(id);
    if (a) apply(a, await res.json());
    return true;
  } catch (err) {
    if (err.status === 410) receive('withdrawn', { id, reason: 'entry withdrawn' });
    else complain(explain(err));
    return false;
  } finally {
    busy = false;
    render();
  }
}

function explain(err) {
  if (!(err instanceof HTTPError)) return 'Non envoyé : la liaison est coupée. Appuyez de nouveau dès son retour.';
  switch (err.status) {
    case 409: return 'Déjà fait par une autre patrouille : voyez l’état de l’alerte.';
    case 401: case 403: case 404: return 'Refusé : cette alerte n’est pas ouverte à ce jeton.';
    case 422: return 'Refusé : choisissez un motif.';
    default: return 'Non enregistré : le service ne répond pas. Appuyez de nouveau.';
  }
}

// press runs an action unless the card has changed under the finger.
const press = (action) => () => {
  if (performance.now() - shown < SETTLE) return;
  action();
};

let sheetDone = null;

// ask opens the sheet of outcomes; done gets {outcome, note} and says whether
// the sheet may close.
function ask(title, outcomes, done) {
  $('sheet-title').textContent = title;
  $('outcomes').replaceChildren(...outcomes.map((o, i) => el('label', { class: 'outcome' },
    el('input', { type: 'radio', name: 'outcome', value: o, required: true, checked: i === 0 && outcomes.length === 1 }),
    el('span', {}, OUTCOMES[o] ?? o))));
  $('note').value = '';
  $('sheet-error').textContent = '';
  sheetDone = done;
  $('sheet').showModal();
}

// The card and the list.

// order is what the alert asks for now: nothing when it is over, and no stop when
// it is late or discreet.
function order({ alert, ...a }) {
  if (a.withdrawn) return { order: 'ALERTE RETIRÉE', then: 'ne pas intervenir', hold: true };
  if (a.state === 'rejected' || a.state === 'closed') {
    return { order: a.state === 'closed' ? 'ALERTE CLOSE' : 'ALERTE ÉCARTÉE', then: OUTCOMES[a.outcome] ?? '', hold: true };
  }
  const action = ACTIONS[alert.action] ?? { order: clean(alert.action).toUpperCase(), then: '' };
  if (alert.late) return { order: 'NE PAS ARRÊTER', then: 'lecture tardive : pour mémoire seulement', hold: true };
  if (!alert.stop) {
    const asks = alert.action !== 'discreet' && alert.action !== 'inform';
    return { order: 'NE PAS ARRÊTER', then: asks ? 'cette alerte ne demande pas d’arrêt' : action.then, hold: true };
  }
  if (a.against && (a.state === 'new' || a.state === 'taken')) return { order: 'VÉRIFIER D’ABORD', then: 'la caméra lit maintenant une autre plaque', hold: true };
  if (a.state === 'confirmed' && alert.action === 'intercept') return { ...action, then: 'lecture vérifiée', hold: false };
  return { ...action, hold: false };
}

let drawn = ''; // what the card shows now; the card is drawn again only when that changes
let due = false;

// render paints once for all that comes in one piece.
function render() {
  if (due) return;
  due = true;
  queueMicrotask(paint);
}

function paint() {
  due = false;
  const a = alerts.get(focused);
  $('card').hidden = !a;
  $('empty').hidden = Boolean(a);
  const key = a ? JSON.stringify([focused, a.state, a.step, a.withdrawn, busy, session.actor, complaint]) : '';
  if (key !== drawn) {
    drawn = key;
    if (a) drawCard(a);
  }
  drawList();
  tick();
}

function drawCard(a) {
  const { alert } = a;
  const card = $('card');
  const p = PRIORITIES[alert.priority] ?? PRIORITIES.info;
  const o = order(a);
  const keepFocus = card.contains(document.activeElement) ? document.activeElement.dataset.verb || 'card' : '';
  card.className = `card priority-${alert.priority}${o.hold ? ' hold' : ''}${finished(a) ? ' finished' : ''}${a.withdrawn ? ' withdrawn' : ''}`;
  if (a.withdrawn) {
    card.replaceChildren(
      el('header', { class: 'order' }, el('p', { class: 'order-word' }, `✕ ${o.order}`), el('p', { class: 'order-then' }, o.then)),
      el('div', { class: 'body' },
        el('p', { class: 'withdrawn-reason' }, REASONS[a.withdrawn] ?? clean(a.withdrawn)),
        el('p', {}, `Elle concernait : ${grouped(readPlate(alert))} — ${clean(alert.list.name)}`),
        el('p', { class: 'hint' }, 'Si un contrôle est en cours, informez le centre opérationnel.')));
  } else {
    card.replaceChildren(
      el('header', { class: 'order' },
        el('p', { class: 'priority' }, el('span', { class: 'shape', 'aria-hidden': 'true' }, p.shape), ` ${p.word}`),
        el('p', { class: 'order-word' }, o.order),
        el('p', { class: 'order-then' }, o.then)),
      el('div', { class: 'body' },
        a.against && !finished(a) && el('p', { class: 'safety' }, el('strong', {}, '⚠ LA CAMÉRA S’EST CORRIGÉE. '),
          'Elle lit maintenant une autre plaque : comparez avec le véhicule.'),
        alert.entry.safety && el('p', { class: 'safety' }, el('strong', {}, '⚠ SÉCURITÉ '), clean(alert.entry.safety)),
        drawPlates(alert),
        drawFacts(alert)),
      drawAnswer(a));
  }
  if (keepFocus) (card.querySelector(`[data-verb="${keepFocus}"]`) ?? card).focus({ preventScroll: true });
}

function drawPlates(alert) {
  const { match } = alert;
  const read = readPlate(alert), entry = entryPlate(alert);
  const differs = match.differs ?? [];
  const exact = match.kind === 'exact';
  const entryCuts = grouping(entry);
  let readCuts = grouping(read);
  // Two texts of one length are divided alike, or they could not be compared.
  if (readCuts.cuts.length === 0 && read.text.length === entry.text.length) readCuts = entryCuts;
  const same = read.text === entry.text;
  return el('div', { class: 'plates' },
    el('p', { class: 'plate-row' }, el('span', { class: 'plate-name' }, 'Lu'), plate(read, readCuts, differs, 'read')),
    same
      ? el('p', { class: 'plate-same' }, 'Fiche : ', el('b', { class: 'mono' }, grouped(entry)), ', même texte')
      : el('p', { class: 'plate-row' }, el('span', { class: 'plate-name' }, 'Fiche'), plate(entry, entryCuts, differs, 'entry')),
    el('p', { class: 'verdict' },
      el('span', { class: exact ? 'badge exact' : 'badge near' }, exact ? '✓ EXACTE' : '≈ APPROCHÉE'),
      !same && el('span', {}, difference(match)), el('span', { class: match.country === 'same' ? '' : 'warn' }, relation(alert))));
}

function difference(match) {
  if (match.kind === 'pattern') return 'Plaque partielle sur la fiche : ? vaut un caractère, * plusieurs ou aucun.';
  const d = match.differs ?? [];
  if (match.read.length !== match.entry.length) return 'Un texte est plus long que l’autre.';
  const pairs = d.map((i) => `${match.read[i] ?? '–'} lu, ${match.entry[i] ?? '–'} sur la fiche`);
  return `${plural(d.length, 'caractère diffère', 'caractères diffèrent')} : ${pairs.join(' ; ')}.`;
}

function relation(alert) {
  const read = countryName(alert.read.country), entry = countryName(alert.entry.country);
  switch (alert.match.country) {
    case 'same': return `Pays : ${read || entry}, comme la fiche.`;
    case 'different': return `▲ PAYS DIFFÉRENT : lu ${read || '?'}, fiche ${entry || '?'}.`;
    default:
      if (!read && entry) return `Pays non lu, fiche ${entry} : à vérifier.`;
      if (read && !entry) return `Pays lu ${read}, absent de la fiche : à vérifier.`;
      return 'Pays inconnu : à vérifier.';
  }
}

const plural = (n, one, many) => `${n} ${n > 1 ? many : one}`;
const percent = (x) => `${Math.round(x * 100)} %`;
const hour = (ms) => new Date(ms).toLocaleTimeString('fr-FR', { hour: '2-digit', minute: '2-digit' });
const clock = (ms) => new Date(ms).toLocaleTimeString('fr-FR', { hour: '2-digit', minute: '2-digit', second: '2-digit' });

function drawFacts(alert) {
  const { entry, read, place, match } = alert;
  const observed = [read.make, read.color].filter(Boolean).map(clean).join(', ');
  const where = place
    ? [clean(place.name), clean(place.road) !== clean(place.name) && clean(place.road)].filter(Boolean).join(', ')
    : `Capteur ${clean(alert.read.sensor)} (position inconnue)`;
  const heading = clean(place?.direction || read.direction);
  const facts = [
    ['Liste', el('b', {}, clean(alert.list.name)), alert.list.owner && ` — ${clean(alert.list.owner)}`],
    ['Motif', el('b', {}, clean(entry.reason))],
    ['Dossier', clean(entry.case_ref)],
    entry.vehicle && ['Véhicule', `recherché : ${clean(entry.vehicle)}`, observed && ` — lu : ${observed}`],
    !entry.vehicle && observed && ['Véhicule', `lu : ${observed}`],
    ['Où', el('b', {}, where), heading && ` — sens ${heading}`, read.lane ? `, voie ${read.lane}` : null],
    ['Quand', el('b', { class: 'age', 'data-ts': read.ts }, ''), ` à ${clock(read.ts)}`],
    ['Lecture', `${read.conf ? `confiance ${percent(read.conf)}, ` : ''}correspondance ${GRADES[match.grade] ?? clean(match.grade)}`],
    ['Photo', 'non disponible : comparez avec le véhicule'],
    ['Listes', `état n° ${match.version}`],
  ].filter(Boolean);
  return el('dl', { class: 'facts' }, ...facts.map(([name, ...text]) =>
    el('div', {}, el('dt', {}, name), el('dd', {}, ...text.filter((t) => t != null && t !== false && t !== '')))));
}

// drawAnswer is who has the alert, and the buttons for what may come next.
function drawAnswer(a) {
  const id = a.alert.id;
  const button = (verb, label, kind, action) =>
    el('button', { type: 'button', 'data-verb': verb, class: kind, disabled: busy, onclick: press(action) }, label);
  let text = '', buttons = [];
  const who = mine(a) ? 'vous' : clean(a.actor);
  switch (a.state) {
    case 'new':
      text = 'NON VÉRIFIÉE · à prendre';
      buttons = [button('take', 'Prendre en charge', 'primary', () => step(id, 'take'))];
      break;
    case 'taken':
      text = `NON VÉRIFIÉE · prise en charge par ${who} à ${hour(a.at)}`;
      if (mine(a)) {
        buttons = [
          button('confirm', 'Lecture conforme', 'primary', () => step(id, 'confirm')),
          button('reject', 'Mal lu…', 'plain', () => ask('Pourquoi écarter cette alerte ?', REJECT, (body) => step(id, 'reject', body))),
        ];
      }
      break;
    case 'confirmed':
      text = `✓ Lecture conforme · vérifiée par ${who} à ${hour(a.at)}`;
      if (mine(a)) {
        buttons = [button('close', 'Clore…', 'primary', () => ask('Quelle suite ?', CLOSE, (body) => step(id, 'close', body)))];
      }
      break;
    default: // rejected or closed: the order says how
      text = `${a.state === 'closed' ? 'Close' : 'Écartée'} par ${who} à ${hour(a.at)}`;
      if (mine(a) && a.state === 'rejected') {
        buttons = [button('close', 'Clore…', 'plain', () => ask('Quelle suite ?', CLOSE, (body) => step(id, 'close', body)))];
      }
  }
  return el('footer', { class: `answer state-${a.state}` }, el('p', { class: 'who' }, text),
    el('p', { class: 'error', role: 'alert' }, complaint),
    buttons.length > 0 && el('div', { class: 'buttons' }, ...buttons));
}

let complaint = '';
function complain(text) {
  complaint = text;
  if ($('sheet').open) $('sheet-error').textContent = text;
}

const rows = new Map(); // id -> {item, key}

function drawList() {
  const sorted = [...alerts.values()].reverse().sort((x, y) =>
    finished(x) - finished(y) || y.alert.created - x.alert.created);
  const open = sorted.filter((a) => !finished(a)).length;
  $('count').textContent = open > 0 ? plural(open, 'ouverte', 'ouvertes') : '';
  document.title = open > 0 ? `(${open}) Vigie` : 'Vigie';
  const list = $('rows');
  let held = null; // the button that had the keyboard before it was drawn again
  const items = sorted.map((a) => {
    const key = JSON.stringify([a.state, a.step, a.withdrawn, a.alert.id === focused]);
    let row = rows.get(a.alert.id);
    if (row?.key !== key) {
      const item = drawRow(a);
      if (row?.item.contains(document.activeElement)) held = item.firstChild;
      row = { item, key };
      rows.set(a.alert.id, row);
    }
    return row.item;
  });
  for (const id of rows.keys()) if (!alerts.has(id)) rows.delete(id);
  // Rows that stand right already stay in place, and with them the focus.
  items.forEach((item, i) => {
    if (list.children[i] !== item) list.insertBefore(item, list.children[i] ?? null);
  });
  while (list.children.length > items.length) list.lastChild.remove();
  held?.focus({ preventScroll: true });

  const waiting = sorted.filter((a) => a.state === 'new' && !a.withdrawn && a.alert.id !== focused && !a.seen);
  const newer = $('newer');
  newer.hidden = waiting.length === 0 || !focused;
  if (waiting.length > 0) {
    const top = waiting.reduce((x, y) => (rank(y) < rank(x) ? y : x));
    const p = PRIORITIES[top.alert.priority] ?? PRIORITIES.info;
    newer.textContent = `${plural(waiting.length, 'autre alerte', 'autres alertes')} : ${p.shape} ${p.word} ${grouped(readPlate(top.alert))} — voir`;
    newer.dataset.id = top.alert.id;
    newer.className = `newer priority-${top.alert.priority}`;
  }
}

function drawRow(a) {
  const { alert } = a;
  const p = PRIORITIES[alert.priority] ?? PRIORITIES.info;
  const o = order(a);
  const state = a.withdrawn ? 'Retirée' : `${STATES[a.state] ?? clean(a.state)}${a.state !== 'new' && a.actor ? ` · ${mine(a) ? 'vous' : clean(a.actor)}` : ''}`;
  return el('li', {}, el('button', {
    type: 'button',
    class: `row priority-${alert.priority}${finished(a) ? ' finished' : ''}${o.hold ? ' hold' : ''}`,
    'aria-current': alert.id === focused ? 'true' : null,
    onclick: () => show(alert.id),
  },
  el('span', { class: 'row-mark' }, el('span', { class: 'shape', 'aria-hidden': 'true' }, p.shape), el('span', { class: 'row-priority' }, p.word)),
  el('span', { class: 'row-plate mono' }, alert.match.kind === 'exact' ? '' : '≈ ', grouped(readPlate(alert))),
  el('span', { class: 'row-age age', 'data-ts': alert.read.ts }, ''),
  el('span', { class: 'row-order' }, finished(a) ? o.then : `${o.order} · ${clean(alert.list.name)}`),
  el('span', { class: 'row-state' }, state)));
}

// show is focus for somebody who asked for it.
function show(id) {
  focus(id);
  paint();
  scrollTo({ top: 0 });
  $('card').focus({ preventScroll: true });
}

function focus(id) {
  focused = id;
  shown = performance.now();
  complaint = '';
  const a = alerts.get(id);
  if (a) a.seen = true;
}

// What moves with the time.

function tick() {
  for (const e of document.querySelectorAll('.age')) {
    const age = Math.max(0, now() - Number(e.dataset.ts));
    e.textContent = ago(age);
    e.classList.toggle('old', age > OLD);
  }
  if (link.state === 'wait') link.broken();
  showLink();
}

function ago(ms) {
  const s = Math.floor(ms / 1000), m = Math.floor(s / 60), h = Math.floor(m / 60);
  if (h >= 24) return `il y a ${Math.floor(h / 24)} j`;
  if (h > 0) return `il y a ${h} h ${String(m % 60).padStart(2, '0')}`;
  return `il y a ${m}:${String(s % 60).padStart(2, '0')}`;
}

function showLink() {
  const words = { off: 'Hors service', wait: link.since ? 'Reprise…' : 'Connexion…', live: 'En direct', lost: 'Liaison perdue' };
  $('link').dataset.state = link.state;
  setText($('link-text'), words[link.state]);
  const lost = link.state === 'lost';
  $('loss').hidden = !lost;
  if (lost) setText($('loss'), `Liaison perdue à ${clock(link.since)}. Les nouvelles alertes et les retraits n’arrivent pas. Nouvel essai en cours.`);
  if (link.state === 'live') {
    setText($('empty-text'), `La file est surveillée ; dernier signal il y a ${Math.round((performance.now() - link.heard) / 1000)} s.`);
  } else {
    setText($('empty-text'), 'La file n’est pas surveillée en ce moment.');
  }
}

function setText(e, text) {
  if (e.textContent !== text) e.textContent = text;
}

let sayTimer = 0;
function announce(text) {
  $('announce').textContent = text;
}

// say shows a remark for a few seconds in the place of the empty queue's text.
function say(text) {
  announce(text);
  const newer = $('queue-name');
  newer.textContent = text;
  clearTimeout(sayTimer);
  sayTimer = setTimeout(() => { newer.textContent = session.queue; }, 6000);
}

// Sound. A browser plays none before a press, so the page says whether it may.

const TONES = {
  critical: [[880, 0.18], [0, 0.07], [880, 0.18], [0, 0.07], [880, 0.18], [0, 0.07], [1175, 0.3]],
  high: [[784, 0.2], [0, 0.08], [988, 0.3]],
  medium: [[659, 0.25]],
  info: [[523, 0.15]],
  withdrawn: [[494, 0.25], [0, 0.05], [330, 0.4]],
  lost: [[330, 0.2], [0, 0.1], [262, 0.4]],
};
let audio = null;
let sounding = 0; // until when a tone sounds, by performance.now

function arm() {
  try {
    audio ??= new AudioContext();
    audio.resume().then(showSound, showSound);
  } catch { audio = null; }
  showSound();
}

function showSound() {
  const on = audio?.state === 'running';
  $('sound').replaceChildren(on ? '♪ Son' : '✕ Son', el('span', { class: 'wide' }, on ? ' armé' : ' coupé'));
  $('sound').setAttribute('aria-label', on ? 'Son armé' : 'Son coupé');
  $('sound').setAttribute('aria-pressed', String(on));
}

function tone(name) {
  // What comes in one piece makes one sound.
  if (audio?.state !== 'running' || !TONES[name] || performance.now() < sounding) return;
  sounding = performance.now() + 1000;
  let t = audio.currentTime;
  for (const [hz, length] of TONES[name]) {
    if (hz > 0) {
      const osc = new OscillatorNode(audio, { frequency: hz, type: 'triangle' });
      const gain = new GainNode(audio, { gain: 0.25 });
      gain.gain.setTargetAtTime(0, t + length * 0.7, 0.03);
      osc.connect(gain).connect(audio.destination);
      osc.start(t);
      osc.stop(t + length);
    }
    t += length;
  }
}

// The screen stays on while the page watches, where the browser allows it.
async function keepAwake() {
  if (link.running && document.visibilityState === 'visible') {
    try { await navigator.wakeLock?.request('screen'); } catch { /* a wish, not a need */ }
  }
}

// Beginning and end of service.

function enter(token, queue) {
  Object.assign(session, { token, queue, actor: '' });
  sessionStorage.setItem('vigie', JSON.stringify({ token, queue }));
  forgetAll();
  $('login').hidden = true;
  $('watch').hidden = $('sound').hidden = $('leave').hidden = false;
  $('queue-name').textContent = queue;
  showSound();
  render();
  link.run();
  keepAwake();
}

// forgetAll leaves nothing of the last service on the page.
function forgetAll() {
  alerts.clear();
  rows.clear();
  clearTimeout(replaying);
  replaying = 0;
  focused = drawn = complaint = '';
  $('rows').replaceChildren();
  $('card').replaceChildren();
  $('announce').textContent = '';
}

function leave(reason) {
  link.stop();
  sessionStorage.removeItem('vigie');
  Object.assign(session, { token: '', actor: '' });
  forgetAll();
  $('sheet').close();
  $('watch').hidden = $('sound').hidden = $('leave').hidden = true;
  $('login').hidden = false;
  $('queue-name').textContent = '';
  $('login-error').textContent = reason ?? '';
  document.title = 'Vigie';
  $('token').focus();
}

function start() {
  $('login-form').addEventListener('submit', (e) => {
    e.preventDefault();
    const token = $('token').value.trim(), queue = $('queue').value.trim();
    $('token').value = '';
    if (!token || !queue) return;
    arm();
    enter(token, queue);
  });
  $('leave').addEventListener('click', () => leave());
  $('sound').addEventListener('click', () => {
    if (audio?.state === 'running') audio.suspend().then(showSound, showSound);
    else { arm(); tone('medium'); }
  });
  $('newer').addEventListener('click', () => show($('newer').dataset.id));
  $('sheet-cancel').addEventListener('click', () => $('sheet').close());
  $('sheet-form').addEventListener('submit', async (e) => {
    e.preventDefault();
    const outcome = new FormData($('sheet-form')).get('outcome');
    const note = $('note').value.trim();
    if (!outcome) return;
    if (await sheetDone({ outcome, ...(note && { note }) })) $('sheet').close();
  });
  document.addEventListener('visibilitychange', keepAwake);
  setInterval(() => { if (session.token) tick(); }, 1000);

  addEventListener('hashchange', fromLink);
  if (fromLink()) return;
  let saved = null;
  try { saved = JSON.parse(sessionStorage.getItem('vigie')); } catch { /* start anew */ }
  if (saved?.queue) $('queue').value = saved.queue;
  if (saved?.token) enter(saved.token, saved.queue);
  else $('login').hidden = false;
}

// fromLink takes what a link carries behind the #, which no browser sends
// anywhere. It leaves the address bar, and with it the history, before all else.
function fromLink() {
  const link = new URLSearchParams(location.hash.slice(1));
  if (location.hash) history.replaceState(null, '', location.pathname);
  const queue = link.get('queue');
  if (queue) $('queue').value = queue;
  const token = link.get('token');
  if (token) enter(token, $('queue').value);
  return Boolean(token);
}

start();
