'use strict';

// Says which model is loaded.
fetch('/api/info')
  .then((response) => (response.ok ? response.json() : Promise.reject(new Error(`status ${response.status}`))))
  .then((info) => {
    const demo = info.demo ? ', the small model for demonstrations' : '';
    document.getElementById('model').textContent = `Model ${info.model}${demo}, on ${info.device}.`;
  })
  .catch((error) => {
    document.getElementById('model').textContent = `The model could not be asked: ${error.message}.`;
  });
