// Everything that comes from the cluster is put in as text, never as markup.
'use strict';
const PERIOD = 2000;
const state = { data: null, fault: null, open: new Map(), sort: { topics: ['name', 1], groups: ['name', 1] } };
const $ = (id) => document.getElementById(id);
const number = new Intl.NumberFormat('en');

function el(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === undefined || value === null || value === false) continue;
    if (key === 'onclick') node.addEventListener('click', value);
    else node.setAttribute(key, value === true ? '' : value);
  }
  for (const child of children) node.append(child instanceof Node ? child : document.createTextNode(String(child)));
  return node;
}
function bytes(n) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let i = 0;
  while (n >= 1024 && i < units.length - 1) { n /= 1024; i += 1; }
  return `${i ? n.toFixed(1) : n} ${units[i]}`;
}
function ago(ms) {
  if (!ms || ms <= 0) return '–';
  let s = Math.max(0, Math.round((state.data.at - ms) / 1000));
  if (s < 90) return `${s} s`;
  if (s < 5400) return `${Math.round(s / 60)} min`;
  return s < 129600 ? `${Math.round(s / 3600)} h` : `${Math.round(s / 86400)} d`;
}
const rate = (n) => (n >= 100 ? number.format(Math.round(n)) : n.toFixed(1));

function table(columns, rows, sortKey, redraw) {
  const sort = sortKey && state.sort[sortKey];
  const head = el('tr', {}, ...columns.map((c) => {
    const label = sort && c.key
      ? el('button', { type: 'button', onclick: () => { state.sort[sortKey] = [c.key, sort[0] === c.key ? -sort[1] : (c.num ? -1 : 1)]; redraw(); } },
        c.title + (sort[0] === c.key ? (sort[1] > 0 ? ' ↑' : ' ↓') : ''))
      : c.title;
    return el('th', { class: c.num ? 'num' : null, scope: 'col', 'aria-sort': sort && sort[0] === c.key ? (sort[1] > 0 ? 'ascending' : 'descending') : null }, label);
  }));
  return el('div', { class: 'scroll' }, el('table', {}, el('thead', {}, head), el('tbody', {}, ...rows)));
}
function sorted(list, sortKey) {
  const [key, way] = state.sort[sortKey];
  return [...list].sort((a, b) => {
    const x = a[key], y = b[key];
    return way * (typeof x === 'string' ? x.localeCompare(y) : (x ?? -1) - (y ?? -1)) || a.name.localeCompare(b.name);
  });
}
function replace(id, ...nodes) {
  // Keep the keyboard's place when rows are drawn anew.
  const focus = document.activeElement && document.activeElement.dataset && document.activeElement.dataset.key;
  $(id).replaceChildren(...nodes);
  if (focus) { const again = $(id).querySelector(`[data-key="${CSS.escape(focus)}"]`); if (again) again.focus(); }
}

function drawBrokers() {
  const nodes = state.data.clusters.flatMap((c) => c.brokers.flatMap((b) => b.nodes));
  const masters = nodes.filter((n) => n.id === 0);
  const sum = (key) => masters.reduce((s, n) => s + (n[key] || 0), 0);
  const tile = (value, label) => el('div', { class: 'tile' }, el('b', {}, value), el('span', {}, label));
  replace('tiles',
    tile(`${nodes.filter((n) => n.ok).length} / ${nodes.length}`, 'brokers answering'),
    tile(number.format(sum('inToday')), 'messages in today'),
    tile(number.format(sum('outToday')), 'messages out today'),
    tile(`${rate(sum('inTps'))} /s`, 'in now'),
    tile(`${rate(sum('outTps'))} /s`, 'out now'),
    tile(`${state.data.namesrv.filter((n) => n.ok).length} / ${state.data.namesrv.length}`, 'name servers answering'));
  const columns = [{ title: 'Broker' }, { title: 'Role' }, { title: 'Address' }, { title: 'State' }, { title: 'Replication' },
    { title: 'In today', num: true }, { title: 'Out today', num: true }, { title: 'In /s', num: true }, { title: 'Out /s', num: true }, { title: 'Log', num: true }, { title: 'Up' }, { title: 'Version' }];
  const blocks = state.data.clusters.map((cluster) => {
    const rows = cluster.brokers.flatMap((broker) => broker.nodes.map((n) => {
      let replication = el('span', { class: 'soft' }, '–');
      if (n.ok && n.id === 0) {
        const slaves = broker.nodes.filter((s) => s.id !== 0).length;
        replication = el('span', { class: slaves ? 'good' : 'soft' }, slaves === 1 ? '1 slave' : `${slaves} slaves`);
      } else if (n.ok && n.lag !== null) {
        replication = n.lag === 0 ? el('span', { class: 'good' }, 'in sync') : el('span', { class: 'warn' }, `behind ${bytes(n.lag)}`);
      } else if (n.ok) replication = el('span', { class: 'warn' }, 'no master');
      return el('tr', { class: n.id === 0 ? null : 'slave' },
        el('td', { class: 'name' }, `${broker.name}:${n.id}`), el('td', {}, n.id === 0 ? 'master' : 'slave'), el('td', { class: 'name' }, n.address),
        el('td', { class: n.ok ? 'good' : 'bad', title: n.fault || null }, n.ok ? 'answers' : `no answer`), el('td', {}, replication),
        ...[n.inToday, n.outToday].map((v) => el('td', { class: 'num' }, n.ok ? number.format(v) : '–')),
        ...[n.inTps, n.outTps].map((v) => el('td', { class: 'num' }, n.ok ? rate(v) : '–')),
        el('td', { class: 'num' }, n.ok ? bytes(n.logEnd - n.logStart) : '–'), el('td', {}, n.ok ? ago(n.bootAt) : '–'), el('td', { class: 'soft' }, n.version || '–'));
    }));
    return [el('h3', {}, cluster.name), table(columns, rows)];
  });
  const servers = state.data.namesrv.map((n) => el('tr', {}, el('td', { class: 'name' }, n.address), el('td', { class: n.ok ? 'good' : 'bad' }, n.ok ? 'answers' : n.fault || 'no answer')));
  replace('clusters', ...(blocks.length ? blocks.flat() : [el('p', { class: 'empty' }, 'No broker is registered at the name server yet.')]),
    el('h3', {}, 'Name servers'), table([{ title: 'Address' }, { title: 'State' }], servers));
}

async function toggle(kind, name) {
  const key = `${kind}/${name}`;
  if (state.open.has(key)) state.open.delete(key);
  else { state.open.set(key, null); await detail(kind, name); }
  draw();
}
async function detail(kind, name) {
  const key = `${kind}/${name}`;
  let value;
  try {
    const response = await fetch(`/api/${kind}?name=${encodeURIComponent(name)}`);
    value = await response.json();
  } catch (error) { value = { error: String(error) }; }
  if (state.open.has(key)) state.open.set(key, value);
}
function rowWithDetail(kind, item, cells, width, render) {
  const key = `${kind}/${item.name}`, open = state.open.has(key);
  const first = el('td', { class: 'name' }, el('button', { type: 'button', 'aria-expanded': String(open), 'data-key': key, onclick: () => toggle(kind, item.name) }, `${open ? '▾' : '▸'} ${item.name}`));
  if (item.kind && item.kind !== 'normal') first.append(el('span', { class: 'tag' }, item.kind));
  const rows = [el('tr', {}, first, ...cells)];
  if (open) {
    const value = state.open.get(key);
    const inside = value === null ? el('p', { class: 'empty' }, 'asking…') : value.error ? el('p', { class: 'bad' }, value.error) : render(value);
    rows.push(el('tr', { class: 'detail' }, el('td', { colspan: width }, inside)));
  }
  return rows;
}
function matching(list, box, system) {
  const text = $(box).value.trim().toLowerCase();
  return list.filter((i) => (system || i.kind === 'normal') && i.name.toLowerCase().includes(text));
}
const none = (what, all) => el('p', { class: 'empty' }, all ? `No ${what} matches.` : `No ${what} yet.`);

function drawTopics() {
  const all = state.data.topics;
  const shown = sorted(matching(all, 'find-topics', $('system-topics').checked), 'topics');
  $('count-topics').textContent = all.filter((t) => t.kind === 'normal').length;
  const rows = shown.flatMap((t) => rowWithDetail('topic', t, [
    el('td', {}, t.routes.map((r) => `${r.broker} ${r.write}w ${r.read}r`).join(' · ')),
    el('td', { class: 'num' }, t.queues), el('td', {}, t.perm),
    el('td', { class: 'num' }, t.messages === null ? '–' : number.format(t.messages)),
    el('td', {}, t.lastStored ? `${ago(t.lastStored)} ago` : '–')], 6,
  (d) => table([{ title: 'Queue' }, { title: 'First offset', num: true }, { title: 'Next offset', num: true }, { title: 'Messages', num: true }, { title: 'Last stored' }],
    d.queues.map((q) => el('tr', {}, el('td', { class: 'name' }, `${q.broker} / ${q.queue}`), el('td', { class: 'num' }, number.format(q.min)), el('td', { class: 'num' }, number.format(q.max)),
      el('td', { class: 'num' }, number.format(q.max - q.min)), el('td', {}, q.lastStored > 0 ? `${ago(q.lastStored)} ago` : '–'))))));
  replace('topic-table', shown.length ? table([{ title: 'Topic', key: 'name' }, { title: 'Route (write, read queues)' }, { title: 'Queues', key: 'queues', num: true }, { title: 'Permission' },
    { title: 'Messages', key: 'messages', num: true }, { title: 'Last stored' }], rows, 'topics', drawTopics) : none('topic', all.length));
}
function drawGroups() {
  const all = state.data.groups;
  const shown = sorted(matching(all, 'find-groups', $('system-groups').checked), 'groups');
  $('count-groups').textContent = all.filter((g) => g.kind === 'normal').length;
  const rows = shown.flatMap((g) => rowWithDetail('group', g, [
    el('td', { class: 'num' }, g.members === null ? '–' : g.members), el('td', {}, g.model || '–'), el('td', {}, g.topics.join(', ') || '–'),
    el('td', { class: `num ${g.lag > 0 ? 'warn' : ''}` }, g.lag === null ? '–' : number.format(g.lag)), el('td', { class: 'num' }, rate(g.tps))], 6,
  (d) => el('div', {},
    el('p', { class: 'soft' }, d.members.length ? d.members.map((m) => `${m.clientId} (${m.language}, ${m.address})`).join(' · ') : 'no member online'),
    table([{ title: 'Topic' }, { title: 'Queue' }, { title: 'Next offset', num: true }, { title: 'Consumed to', num: true }, { title: 'Lag', num: true }],
      d.queues.map((q) => el('tr', {}, el('td', { class: 'name' }, q.topic), el('td', { class: 'name' }, `${q.broker} / ${q.queue}`), el('td', { class: 'num' }, number.format(q.max)),
        el('td', { class: 'num' }, number.format(q.consumed)), el('td', { class: `num ${q.max > q.consumed ? 'warn' : ''}` }, number.format(q.max - q.consumed))))))));
  replace('group-table', shown.length ? table([{ title: 'Group', key: 'name' }, { title: 'Members', key: 'members', num: true }, { title: 'Model' }, { title: 'Topics' },
    { title: 'Lag', key: 'lag', num: true }, { title: 'Out /s', key: 'tps', num: true }], rows, 'groups', drawGroups) : none('group', all.length));
}

function draw() {
  $('fault').hidden = !state.fault;
  $('fault').textContent = state.fault || '';
  $('dot').className = `dot ${state.fault ? 'bad' : 'good'}`;
  if (!state.data) { $('pulse-text').textContent = 'no answer from the cluster'; return; }
  const time = new Date(state.data.at).toLocaleTimeString();
  $('pulse-text').textContent = state.fault ? `stale since ${time}` : `live, ${time}`;
  drawBrokers(); drawTopics(); drawGroups();
}
async function refresh() {
  try {
    const response = await fetch('/api/overview');
    const value = await response.json();
    if (!response.ok) throw new Error(value.error);
    state.data = value;
    state.fault = null;
    await Promise.all([...state.open.keys()].map((key) => { const [kind, ...name] = key.split('/'); return detail(kind, name.join('/')); }));
  } catch (error) { state.fault = error instanceof TypeError ? 'The console itself does not answer. Is the cluster up? (rmqctl status)' : error.message; }
  draw();
}
function show() {
  const wanted = ['brokers', 'topics', 'groups'].includes(location.hash.slice(1)) ? location.hash.slice(1) : 'brokers';
  for (const section of document.querySelectorAll('main > section')) section.hidden = section.id !== wanted;
  for (const link of document.querySelectorAll('nav a')) link.toggleAttribute('aria-current', link.hash === `#${wanted}`);
}
async function loop() {
  // A page nobody looks at asks nothing.
  if (!document.hidden) await refresh();
  setTimeout(loop, PERIOD);
}
addEventListener('hashchange', () => { show(); scrollTo(0, 0); });
for (const id of ['find-topics', 'system-topics', 'find-groups', 'system-groups']) $(id).addEventListener('input', () => state.data && draw());
show();
loop();
